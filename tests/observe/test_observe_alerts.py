"""Each rule tells once when something begins, once when it is over, and is quiet otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ratatouille.errors import RequestError
from ratatouille.observe import alerts, findings

Inbox = Kitchen = Any  # of conftest.py

CHANNELS = "name: kitchen\nalerts:\n  channels: {team: '${TEAM_CHANNEL}', mail: '${MAIL_CHANNEL}'}\n  rules:\n"
BAD = {"name": "filled", "passed": False, "severity": "error", "bad": 3, "value": None}


def rule(when: str, extra: str = "", name: str = "it", to: str = "team") -> str:
    return f"    {name}: {{when: [{when}], to: {to}{', ' if extra else ''}{extra}}}\n"


CALM = {"seconds": 10.0, "measured": {"memory_share": 0.3, "disk_left_bytes": 10**11}}


def calm(kitchen: Kitchen) -> None:
    for _ in range(8):
        kitchen.step("silver.a", **CALM)


# condition -> (its key in the rule, steps that are wrong: the last of them is the one that counts)
WRONG: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "run_failed": ("", [{"status": "failed"}]),
    "gate_failed": ("", [{"status": "failed", "checks": [BAD]}]),
    "gate_warned": ("", [{"checks": [BAD | {"severity": "warn"}]}]),
    "quarantine": ("over: 2%", [{"rows_quarantined": 30}]),
    "regression": ("", [{"seconds": 20.0}, {"seconds": 20.0}]),
    "anomaly": ("", [{"rows": 5000, "seconds": 10.0}]),
    "memory_pressure": ("", [{"measured": {"memory_share": 0.97}}]),
    "disk_low": ("", [{"measured": {"disk_left_bytes": 10**9}}]),
}


@pytest.mark.parametrize("about", WRONG)
def test_a_rule_fires_once_recovers_once_and_is_quiet_otherwise(kitchen: Kitchen, about: str) -> None:
    extra, wrong = WRONG[about]
    kitchen.write("workspace.yaml", CHANNELS + rule(f"{about}, recovered", extra))
    kitchen.look()
    calm(kitchen)
    assert kitchen.look().told == () and kitchen.told == []
    *before, last = [{"seconds": 10.0, **one} for one in wrong]
    for one in before:
        kitchen.step("silver.a", **one)
        assert kitchen.look().told == (), "one slow step is no regression yet"
    run_id = kitchen.step("silver.a", **last)
    [(_, [line])] = kitchen.look().told
    assert (line.about, line.subject, line.run_id, line.recovered) == (about, "silver.a", run_id, False)
    kitchen.step("silver.a", **last)
    assert kitchen.look().told == (), "it lasts, and is told already"
    assert kitchen.look().told == (), "nothing happened"
    kitchen.step("silver.a", **CALM)
    [(_, [line])] = kitchen.look().told
    assert line.recovered and line.about == about
    kitchen.step("silver.a", **CALM)
    assert kitchen.look().told == ()
    assert [title for _, title, _ in kitchen.told][1].startswith("kitchen: silver.a works again")
    assert len(kitchen.told) == 2


@pytest.mark.parametrize(
    ("about", "step"),
    [
        ("gate_failed", {"status": "failed"}),  # not by a gate
        ("quarantine", {"rows_quarantined": 10}),  # 1 %, not over 2 %
        ("memory_pressure", {"measured": {"memory_share": 0.85}}),  # a warning, and the rule wants failures
        ("regression", {"seconds": 10.3}),
        ("anomaly", {"rows": 1200}),
    ],
)
def test_what_is_not_far_enough_is_not_told(kitchen: Kitchen, about: str, step: dict[str, Any]) -> None:
    extra = {"quarantine": "over: 2%", "memory_pressure": "level: fail"}.get(about, "")
    kitchen.write("workspace.yaml", CHANNELS + rule(about, extra))
    kitchen.look()
    calm(kitchen)
    for _ in range(3):
        kitchen.step("silver.a", **({"seconds": 10.0} | step))
    assert kitchen.look().told == ()


def test_fewer_rows_that_pass_and_a_lower_score_are_regressions_with_their_points(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("regression"))
    kitchen.look()
    score = {"name": "filled", "passed": True, "severity": "error", "value": 0.99}
    for _ in range(8):
        kitchen.step("silver.a", rows_quarantined=10, checks=[score])
    kitchen.step("silver.a", rows_quarantined=100, checks=[score | {"value": 0.9}])
    [(_, [line])] = kitchen.look().told
    assert line.said == (
        "90.0% of the rows passed, usually 99.0% (-9.0 points); 90.0% in the check filled, usually 99.0% (-9.0 points)"
    )


def test_rules_choose_assets_by_owner_tag_group_and_name(kitchen: Kitchen) -> None:
    kitchen.write("pipelines/silver/a.sql", "select 1 as x")
    kitchen.write("pipelines/silver/a.yaml", "owners: ada\ntags: critical\ngroup: till")
    kitchen.write("pipelines/silver/b.sql", "select 1 as x")
    chosen = {
        "who": "owner:ada",
        "what": "tag:critical",
        "where": "group:till",
        "which": "silver.b",
        "native": "gold.*",
    }
    rules = "".join(rule("run_failed", f"assets: '{said}'", name) for name, said in chosen.items())
    kitchen.write("workspace.yaml", CHANNELS + rules + rule("run_failed", "assets: silver.zzz", "broken"))
    kitchen.look()
    for asset in ("silver.a", "silver.b", "gold.by_dagster"):
        kitchen.step(asset, "failed")
    looked = kitchen.look()
    subjects = {name: [line.subject for line in lines] for name, lines in looked.told}
    assert subjects == {
        "who": ["silver.a"], "what": ["silver.a"], "where": ["silver.a"], "which": ["silver.b"],
        "native": ["gold.by_dagster"],
    }  # fmt: skip
    assert [one for one in looked.problems if "the rule broken is about nothing" in one]
    assert alerts.overview(kitchen.project).problems[-1:] == looked.problems[-1:]
    body = next(body for _, title, body in kitchen.told if "silver.a" in title)
    assert "Owners: ada" in body and "Next: rat run silver.a" in body


def test_the_cool_down_keeps_what_comes_and_goes_quiet_and_a_lasting_problem_is_told_again_after_a_day(
    kitchen: Kitchen,
) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed, recovered", "cooldown: 2h, repeat: 1d"))
    kitchen.look()
    for _ in range(5):  # it fails and works, every two minutes
        kitchen.step("silver.a", "failed")
        kitchen.look()
        kitchen.step("silver.a")
        kitchen.look()
    assert [("works again" in title) for _, title, _ in kitchen.told] == [False, True]
    kitchen.clock += 3 * 3600
    kitchen.step("silver.a", "failed")
    kitchen.look()
    assert len(kitchen.told) == 3 and "4 more times" in kitchen.told[2][2]
    kitchen.clock += 3 * 3600
    kitchen.step("silver.a", "failed")
    assert kitchen.look().told == ()
    kitchen.clock += 86_400
    kitchen.step("silver.a", "failed")
    assert len(kitchen.look().told) == 1
    assert "2 more times" in kitchen.told[3][2]


def test_many_problems_of_one_look_are_one_message_and_a_gate_is_told_once(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed, gate_failed", to="[team, mail]"))
    kitchen.look()
    for number in range(30):
        kitchen.step(f"silver.t{number}", "failed", checks=[BAD])
    looked = kitchen.look()
    assert [len(lines) for _, lines in looked.told] == [30]
    assert [(to, title) for to, title, _ in kitchen.told] == [
        (f"json://{to}", "kitchen: 30 problems, first: silver.t0 was stopped by a gate") for to in ("team", "mail")
    ]
    assert "... and 10 more" in kitchen.told[0][2]


def test_a_killed_run_and_a_run_that_failed_as_a_whole_are_told_and_recover(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed, recovered"))
    kitchen.look()
    asked = {"selectors": ["+gold.b"], "force": False}
    with kitchen.journal() as journal:
        journal.start_run("dead", asked)
        journal.do("update runs set pid = 1, started_ticks = 'another' where run_id = 'dead'")
        journal.note_sample("dead", {"memory_share": 0.97})
        kitchen.clock += 600
        assert journal.reap() == ["dead"]
    [(_, [line])] = kitchen.look().told
    assert line.subject == "run of +gold.b" and line.said.endswith("it used 97% of its memory")
    assert kitchen.look().told == ()
    with kitchen.journal() as journal:
        kitchen.clock += 60
        journal.start_run("again", asked)
        journal.end_run("again", "done")
    [(_, [line])] = kitchen.look().told
    assert line.recovered
    with kitchen.journal() as journal:
        kitchen.clock += 60
        journal.start_run("wrong", {"selectors": []})
        journal.end_run("wrong", "failed", {"what": "the disk is full", "next": "make room"})
    [(_, [line])] = kitchen.look().told
    assert (line.subject, line.said, line.next) == ("run of everything stale", "the disk is full", "make room")


def test_what_was_before_the_first_look_is_not_told(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed"))
    kitchen.step("silver.a", "failed")
    assert kitchen.look().told == ()
    kitchen.step("silver.b", "failed")
    [(_, lines)] = kitchen.look().told
    assert [line.subject for line in lines] == ["silver.b"]
    kitchen.step("silver.b")
    assert kitchen.look().told == (), "nobody asked to be told that it is over"


def test_a_small_quick_step_is_looked_at_when_it_is_not_like_the_one_before(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("anomaly"))
    kitchen.look()
    for _ in range(8):
        kitchen.step("silver.a", rows=10, seconds=0.01)
    kitchen.step("silver.a", rows=100, seconds=0.01)
    [(_, [line])] = kitchen.look().told
    assert line.said == "100 rows written, usually 10 (10 times as much)"
    kitchen.write("workspace.yaml", CHANNELS + rule("regression"))
    for _ in range(8):
        kitchen.step("silver.b", rows=10, seconds=0.01)
    kitchen.step("silver.b", rows=10, seconds=0.01, rows_quarantined=5)
    [(_, [line])] = kitchen.look().told
    assert line.said == "50.0% of the rows passed, usually 100.0% (-50.0 points)"


def test_templates_say_it_in_other_words_and_a_broken_one_loses_nothing(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILL_PASSWORD", "swordfish-12")
    mine = "title: '{{ problems | length }} x {{ workspace }}', message: '{% for p in problems %}{{ p.subject }}! {{ p.said }}{% endfor %}'"
    wrong = "title: '{{ nobody.knows }}', message: '{{ [].__class__.__base__.__subclasses__() }}'"
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed", mine, "a") + rule("run_failed", wrong, "b"))
    kitchen.look()
    kitchen.step("silver.a", "failed", error={"what": "no way in with swordfish-12", "next": ""})
    kitchen.look()
    assert kitchen.told[0][1:] == ("1 x kitchen", "silver.a! no way in with [hidden]")
    assert kitchen.told[1][1] == "kitchen: silver.a failed"
    assert "no way in with [hidden]" in kitchen.told[1][2] and "The template of the rule b failed" in kitchen.told[1][2]
    assert "swordfish" not in str(kitchen.told)


pytestmark = pytest.mark.filterwarnings(
    "ignore:'imghdr' is deprecated:DeprecationWarning",  # of a package below apprise, on Python 3.11 and 3.12
)


def test_a_place_that_fails_at_first_gets_its_message_later_and_the_address_goes_nowhere(
    kitchen: Kitchen, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("TEAM_CHANNEL", inbox.address)
    inbox.refuse = 2
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed"))
    kitchen.look()
    kitchen.step("silver.a", "failed")
    first = kitchen.look().delivered
    assert [name for name, _ in first.failed] == ["team"] and first.waiting == 1
    assert kitchen.look().delivered.failed == (), "it is not due yet"
    kitchen.clock += 31
    assert len(kitchen.look().delivered.failed) == 1
    kitchen.clock += 60
    assert kitchen.look().delivered == type(first)(waiting=1)
    kitchen.clock += 61
    assert len(kitchen.look().delivered.sent) == 1
    assert [one["title"] for one in inbox.messages] == ["kitchen: silver.a failed"]
    assert inbox.asked == 3
    with kitchen.journal() as journal:
        written = str(journal.do("select * from alert_outbox")) + str(first) + caplog.text
    assert "hunter2" not in written and "inbox-path-token" not in written


def test_mail_arrives(kitchen: Kitchen, mail_server: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed"))
    with mail_server() as (port, mails):
        address = f"mailto://127.0.0.1:{port}/?mode=insecure&from=kitchen@example.org&to=ada@example.org"
        monkeypatch.setenv("TEAM_CHANNEL", address)
        kitchen.look()
        kitchen.step("silver.a", "failed")
        delivered = kitchen.look().delivered
    assert delivered.failed == () and len(delivered.sent) == 1
    [mail] = mails
    assert "kitchen: silver.a failed" in mail and "ada@example.org" in mail and "it broke" in mail


def test_a_step_that_is_tried_again_is_not_told_before_its_last_try(kitchen: Kitchen) -> None:
    kitchen.write("pipelines/silver/a.sql", "select 1 as x")
    kitchen.write("pipelines/silver/a.yaml", "retries: {max: 2}")
    kitchen.write("workspace.yaml", CHANNELS + rule("run_failed, recovered"))
    kitchen.look()
    error = {"error": "TransientError", "what": "the line was busy", "next": ""}
    with kitchen.journal() as journal:
        for attempt in (1, 2, 3):
            kitchen.clock += 60
            journal.record_step("by-dagster", "silver.a", attempt, "failed", {"error": error})
            told = kitchen.look().told
            assert bool(told) == (attempt == 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("alerts: {channels: {team: 'slack://token'}}", "name its variable, like ${TEAM_CHANNEL}"),
        (CHANNELS + rule("run_faild"), "Did you mean 'run_failed'"),
        (CHANNELS + rule("run_failed", to="taem"), "Did you mean 'team'"),
        (CHANNELS + rule("run_failed", "title: '{{ x '"), "The template cannot be read"),
        (CHANNELS + rule("run_failed", "when_: 1"), "Unknown key 'when_'"),
        ("observe: {time: {warn: much}}", "write a share like 10%"),
        ("observe: {confirm: 0}", "1 or more"),
    ],
)
def test_what_is_wrong_in_the_settings_is_said_at_its_place(kitchen: Kitchen, text: str, sentence: str) -> None:
    kitchen.write("workspace.yaml", text)
    with pytest.raises(RequestError) as wrong:
        kitchen.project  # noqa: B018
    assert sentence in str(wrong.value) and "workspace.yaml:" in wrong.value.where


def test_what_a_channels_library_says_holds_no_part_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import apprise

    from ratatouille.observe.channels import send

    def fails(self: Any, **_: Any) -> bool:
        raise OSError("POST https://127.0.0.1/inbox-path-token?key=query-secret as user:hunter2-secret failed")

    monkeypatch.setattr(apprise.Apprise, "notify", fails)
    said = send(["json://user:hunter2-secret@127.0.0.1/inbox-path-token?key=query-secret"], "a", "b")
    assert said.startswith("OSError: POST https://127.0.0.1/")
    assert not [one for one in ("hunter2", "inbox-path", "query-secret") if one in said]
    assert send(["nonsense"], "a", "b") == "1 of 1 addresses cannot be read by apprise"
    assert send([], "a", "b") == "no address is set"


def test_columns_that_are_not_as_they_were_are_said_with_the_figure(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("anomaly"))
    kitchen.look()
    usual = {"rows": 1000, "nulls": 10, "bytes": 5000, "distinct": 10, "min": 0, "max": 100}
    for number in range(8):
        kitchen.step("silver.a", measured={"columns": {"a": usual | {"distinct": 10 + number % 2}}})
    kitchen.step("silver.a", measured={"columns": {"a": usual | {"distinct": 30, "max": 250, "min": -90, "nulls": 40}}})
    assert kitchen.look().told == (), "a little more of everything is nothing"
    odd = {"rows": 1000, "nulls": 500, "bytes": 50_000, "distinct": 400, "min": -9999, "max": 99_999}
    run_id = kitchen.step("silver.a", measured={"columns": {"a": odd}})
    kitchen.look()
    with kitchen.journal() as journal:
        said = {one.figure: one.said for one in findings.kept(journal, run_id)}
    assert said == {
        "nulls of a": "50.0% of a is null, usually 1.0%",
        "distinct of a": "400 different values of a, usually 11",
        "bytes per row of a": "50 bytes for each row of a, usually 5",
        "smallest of a": "the smallest a is -9,999, and was -90 at least",
        "largest of a": "the largest a is 99,999, and was 250 at most",
    }


def test_a_rule_about_nothing_but_recoveries_is_told_of_each_of_them(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("recovered"))
    kitchen.look()
    kitchen.step("silver.a", "failed")
    kitchen.step("silver.b", rows_quarantined=5)
    assert kitchen.look().told == ()
    kitchen.step("silver.a")
    kitchen.step("silver.b")
    [(_, lines)] = kitchen.look().told
    assert [(line.subject, line.about, line.recovered) for line in lines] == [
        ("silver.a", "run_failed", True),
        ("silver.b", "quarantine", True),
    ]
    assert kitchen.look().told == ()


def test_a_step_that_does_not_end_and_memory_that_runs_out_are_told_while_it_runs_and_once(kitchen: Kitchen) -> None:
    kitchen.write("workspace.yaml", CHANNELS + rule("overdue, memory_pressure, disk_low, recovered"))
    kitchen.look()
    calm(kitchen)  # ten seconds each
    kitchen.look()
    used = {"memory_bytes": 1, "memory_share": 0.3, "cpu_s": 1.0, "spill_bytes": 0, "disk_left_bytes": 10**11}
    with kitchen.journal() as journal:
        journal.start_run("long", {})
        journal.record_step("long", "silver.a", 1, "running")
        began = kitchen.clock

        def told(after_s: float, **sample: float) -> list[tuple[str, str, str]]:
            kitchen.clock = began + after_s
            journal.note_sample("long", used | sample)
            return [(one.about, one.subject, one.level) for _, lines in kitchen.look().told for one in lines]

        assert told(5) == told(68) == [], "it takes no longer than a minute more than ever"
        assert told(80) == [("overdue", "silver.a", "warn")]
        assert told(100) == [], "it is told already"
        assert told(110, memory_share=0.97) == [("memory_pressure", "silver.a", "fail")]
        assert told(140, memory_share=0.96) == [("overdue", "silver.a", "fail")], "it got worse"
        assert "(1 more times" in kitchen.told[-1][2], "two lines were crossed, however often somebody looked"
        assert told(150, disk_left_bytes=1.5e9) == [("disk_low", "silver.a", "warn")]
        assert "in_words" not in kitchen.told[-1][2] and "1,500 MB are left" in kitchen.told[-1][2]
        record = {"seconds": 150.0, "measured": {"memory_share": 0.97, "disk_left_bytes": 1.5e9, "profile": "p"}}
        journal.record_step("long", "silver.a", 1, "built", {"mode": "full", **record})
    [(_, lines)] = kitchen.look().told
    assert [(one.about, one.recovered) for one in lines] == [("overdue", True)], "its end says nothing twice"
    kitchen.step("silver.a", **CALM)
    [(_, lines)] = kitchen.look().told
    assert {(one.about, one.recovered) for one in lines} == {("memory_pressure", True), ("disk_low", True)}


def test_a_run_looks_for_itself_while_it_goes_on(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ratatouille.handle import Workspace
    from ratatouille.observe import watch

    looks: list[str] = []

    def failing(*_: Any, **__: Any) -> None:
        looks.append("once")
        raise OSError("whatever is wrong with a look")

    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    monkeypatch.setattr(alerts, "look", failing)
    (tmp_path / "pipelines/silver").mkdir(parents=True)
    (tmp_path / "pipelines/silver/a.sql").write_text("select count(*) as n from range(1000000)")
    (tmp_path / "workspace.yaml").write_text("name: quiet\n")
    Workspace(tmp_path).run()
    assert looks == [], "nobody asked for it"
    (tmp_path / "workspace.yaml").write_text(CHANNELS + rule("overdue"))
    assert Workspace(tmp_path).run("silver.a", full=True)["status"] == "completed"
    assert len(looks) > 1, "and what goes wrong there is not the run's"
