"""The pages of one machine show what another one has done, from a catalog and a journal on PostgreSQL."""

from __future__ import annotations

from starlette.testclient import TestClient

from ratatouille.pages.guard import access
from ratatouille.pages.server import TABS, make_app


def test_the_pages_of_a_team_s_lake(local_team):
    here, there = local_team.machine("here"), local_team.machine("there")
    here.land("a.csv", [(1, 1, 10), (2, 2, 20)])
    first, second = here.run(), here.run(force=True)
    allowed = access("127.0.0.1", 3040)
    cookies = {allowed.cookie: allowed.token}
    with TestClient(make_app(there.root, allowed), base_url="http://127.0.0.1:3040", cookies=cookies) as client:
        pages = ["/", "/runs", f"/run/{second.run_id}", f"/compare?a={first.run_id}&b={second.run_id}"]
        pages += ["/compare?asset=silver.sales", "/?layer=silver", "/asset/silver.sales?tab=lineage&column=id"]
        pages += [f"/asset/silver.sales?tab={tab}" for tab in TABS]
        answers = {page: client.get(page) for page in pages}
        assert {page: answer.status_code for page, answer in answers.items()} == dict.fromkeys(pages, 200)
        assert "silver.sales" in answers["/"].text and first.run_id in answers["/runs"].text
        assert "publish" in answers[f"/run/{second.run_id}"].text
        assert "rat rollback silver.sales --to" in answers["/asset/silver.sales?tab=versions"].text
        here.land("b.csv", [(2, 3, 30)])
        newest = here.run()
        assert newest.run_id in client.get("/runs").text
        assert "1 changed" in client.get("/asset/silver.sales?tab=diff").text
