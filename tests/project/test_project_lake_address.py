"""What `lake:` may say, and what it may not."""

from __future__ import annotations

import pytest

from ratatouille.errors import RequestError
from ratatouille.project import load

WRONG = {
    "{catalog: 'postgres://rat:hunter22@db/lake'}": "a password does not belong",
    "{catalog: 'mysql://db/lake'}": "mysql:// is no catalog",
    "{data: 's3://bucket/lake'}": "needs a catalog on PostgreSQL",
    "{catalog: 'postgres://db/lake', data: 'gs://bucket'}": "gs:// cannot hold data",
    "{catalog: '${DSN}'}": "a password does not belong",
}


@pytest.mark.parametrize("said", WRONG)
def test_what_a_lake_cannot_be_is_said_without_its_password(said, tmp_path, monkeypatch):
    monkeypatch.setenv("DSN", "postgres://rat:hunter22@db/lake")
    (tmp_path / "workspace.yaml").write_text(f"name: shop\nlake: {said}\n")
    (tmp_path / "pipelines").mkdir()
    with pytest.raises(RequestError, match=WRONG[said]) as error:
        load(tmp_path)
    assert "hunter22" not in str(error.value)


def test_the_variable_of_a_password_stays_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOST", "db")
    monkeypatch.setenv("LAKE_PASSWORD", "hunter22")
    lake = "lake: {catalog: 'postgres://rat:${LAKE_PASSWORD}@${HOST}/lake', data: 's3://bucket/${HOST}/'}"
    (tmp_path / "workspace.yaml").write_text(f"name: shop\n{lake}\n")
    (tmp_path / "pipelines").mkdir()
    workspace = load(tmp_path).workspace
    assert workspace.catalog == "postgres://rat:${LAKE_PASSWORD}@db/lake"
    assert workspace.data == "s3://bucket/db"
