"""The dashboard in a real browser over a gateway that has served a seeded mix of traffic."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import axe_core_python
import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import DESKTOP, PHONE, Watched, chromium
from tests.e2e.gateway_process import REMOTE, RunningGateway, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = """
tenant: acme
budgets: [{window: month, limit_usd: "0.05"}, {window: day, limit_usd: "0.02", zone: Europe/Berlin, soft: true}]
sla: {small: {total_ms: 2000, ttft_ms: 500}, large: {ttft_ms: 500, total_ms: 20000}}
"""
GLOBEX = 'tenant: globex\nbudgets: [{window: month, limit_usd: "5"}]\n'
INITECH = 'tenant: initech\nbudgets: [{window: month, limit_usd: "0.000000001"}]\n'
PAGES = ("overview", "tenants", "tenants/acme", "requests", "engines", "cache", "policies")
REQUESTS = 60
SCREENSHOTS = os.environ.get("HEADGATE_SCREENSHOTS")
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("dashboard")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME, "globex": GLOBEX, "initech": INITECH})
    with run_gateway(folder) as running:
        send_traffic(running)
        running.request_rows(REQUESTS)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def send_traffic(gateway: RunningGateway, seed: int = 1) -> None:
    draw = random.Random(seed)
    keys = {tenant: gateway.key(tenant) for tenant in ("acme", "globex", "initech")}
    with httpx.Client(base_url=gateway.base_url, trust_env=False, timeout=30) as client:
        for _ in range(REQUESTS):
            question = draw.choice((f"Which river flows through town {draw.randrange(9)}?", "Say hello.", "Prove it."))
            body = {
                "model": draw.choice(("auto", "auto", "small", "large")),
                "stream": draw.random() < 0.5,
                "messages": [{"role": "user", "content": question}],
            }
            tenant = draw.choice(("acme", "acme", "globex", "initech"))
            client.post("/chat/completions", json=body, headers={"authorization": f"Bearer {keys[tenant]}"})


def owner_key(gateway: RunningGateway) -> str:
    return (gateway.folder / "var" / "admin.key").read_text().strip()


@contextmanager
def opened(
    browser: Browser, gateway: RunningGateway, size: tuple[int, int] = DESKTOP, scheme: Any = "light"
) -> Iterator[tuple[Page, Watched]]:
    """Open a logged-in page that is watched from its first request on."""
    watched = Watched(gateway.admin_url)
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        locale="en-GB",
        timezone_id="Europe/Berlin",
    )
    page = context.new_page()
    watched.watch(page)
    page.goto(gateway.admin_url)
    page.fill("#key", owner_key(gateway))
    page.click("button[type=submit]")
    page.wait_for_selector("nav")
    yield page, watched
    context.close()


def show(page: Page, gateway: RunningGateway, path: str) -> None:
    page.goto(f"{gateway.admin_url}/dashboard#/{path}")
    page.wait_for_selector("main h1")
    expect(page.locator("[aria-busy]")).to_have_count(0)


def figure(page: Page, name: str) -> Any:
    return page.locator(".figure", has=page.locator("dt", has_text=name)).first


def admin(gateway: RunningGateway, path: str) -> Any:
    headers = {"authorization": f"Bearer {owner_key(gateway)}"}
    return httpx.get(gateway.admin_url + path, headers=headers, trust_env=False).raise_for_status().json()


def usd(nano: int) -> str:
    whole, fraction = divmod(nano, 10**9)
    digits = f"{fraction:09d}".rstrip("0")
    return f"${whole}.{digits}" if digits else f"${whole}"


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_every_page_opens_without_error_or_outside_request(
    browser: Browser, gateway: RunningGateway, size: tuple[int, int], scheme: str
) -> None:
    routed = [row for row in gateway.request_rows(REQUESTS) if row["reason"] == "score"]
    newest = routed[-1]["request_id"]
    with opened(browser, gateway, size, scheme) as (page, watched):
        for path in (*PAGES, f"requests/{newest}"):
            show(page, gateway, path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the page"
            serious = page.evaluate(
                AXE + "; axe.run().then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact))"
                ".map(v => `${v.id}: ${v.nodes[0].html} ${v.nodes[0].failureSummary}`))"
            )
            assert serious == [], path
            if SCREENSHOTS:
                name = path.split("/req_")[0].replace("/", "-") + ("-one" if "req_" in path else "")
                width = "phone" if size == PHONE else "desktop"
                page.screenshot(path=f"{SCREENSHOTS}/{name}-{width}.png", full_page=True)
    assert watched.console_errors == []
    assert watched.outside_requests == []


def test_the_overview_adds_up_to_the_log_and_the_ledger(browser: Browser, gateway: RunningGateway) -> None:
    rows = gateway.request_rows(REQUESTS)
    cost_nano_usd = sum(row["cost_nano_usd"] for row in rows)
    months = [line for line in admin(gateway, "/admin/budgets")["budgets"] if line["window"] == "month"]
    assert sum(round(float(line["spent_usd"]) * 10**9) for line in months) == cost_nano_usd
    with opened(browser, gateway) as (page, _):
        show(page, gateway, "overview?range=1h")
        expect(figure(page, "Cost")).to_have_attribute("title", usd(cost_nano_usd))
        expect(figure(page, "Requests").locator("dd").first).to_have_text(str(len(rows)))
        saved_nano_usd = sum((row["baseline_nano_usd"] or row["cost_nano_usd"]) for row in rows) - cost_nano_usd
        expect(figure(page, "Saved")).to_have_attribute("title", usd(saved_nano_usd))
        expect(page.get_by_label("Engines and deployments").locator("tbody tr")).to_have_count(2)


def test_a_tenants_page_shows_its_own_figures_and_policy(browser: Browser, gateway: RunningGateway) -> None:
    rows = [row for row in gateway.request_rows(REQUESTS) if row["tenant"] == "acme"]
    with opened(browser, gateway) as (page, _):
        show(page, gateway, "tenants/acme?range=1h")
        expect(figure(page, "Requests").locator("dd").first).to_have_text(str(len(rows)))
        expect(page.locator("text=Policy in force")).to_be_visible()
        expect(page.get_by_label("SLA by tier").locator("tbody tr")).to_have_count(2)
        expect(page.get_by_label("Policy of acme")).to_contain_text("service_class: interactive")
        expect(page.get_by_label("Policy of acme")).to_contain_text("limit_nano_usd: 50000000")


def test_the_requests_page_lists_every_row_and_filters_them(browser: Browser, gateway: RunningGateway) -> None:
    rows = gateway.request_rows(REQUESTS)
    refused = [row for row in rows if 400 <= row["status"] < 500]
    with opened(browser, gateway) as (page, _):
        show(page, gateway, "requests?outcome=refused")
        expect(page.locator("tbody tr")).to_have_count(len(refused))
        show(page, gateway, "requests")
        expect(page.locator("tbody tr")).to_have_count(50)
        page.click("text=Older requests")
        expect(page.locator("tbody tr")).to_have_count(len(rows))


def test_one_request_shows_its_attempts_and_its_exact_cost(browser: Browser, gateway: RunningGateway) -> None:
    row = next(row for row in gateway.request_rows(REQUESTS) if row["cost_nano_usd"] and row["tier"] == "large")
    with opened(browser, gateway) as (page, _):
        show(page, gateway, f"requests/{row['request_id']}")
        expect(page.locator(".pairs div", has_text="Settled cost").locator("dd")).to_have_text(
            usd(row["cost_nano_usd"])
        )
        expect(page.locator("section", has_text="Attempts").locator("tbody tr").first).to_contain_text("two")
        expect(page.locator(".summary")).to_contain_text("Answered by two")
        expect(page.locator("section", has_text="Decision receipt").last).to_contain_text("byte-identical")


def test_a_candidate_policy_is_compared_and_not_put_in_force(browser: Browser, gateway: RunningGateway) -> None:
    before = admin(gateway, "/admin/policies")["version"]
    with opened(browser, gateway) as (page, _):
        show(page, gateway, "policies")
        page.fill("#candidate", GLOBEX.replace('"5"', '"7"'))
        page.select_option("select", "globex")
        page.click("text=Compare with")
        expect(page.locator("[role=status] tbody tr")).to_have_count(1)
        expect(page.locator("[role=status] tbody")).to_contain_text("7 USD per month")
        page.fill("#candidate", "tenant: globex\nbudgets: 5")
        page.click("text=Compare with")
        expect(page.locator("[role=alert]")).to_contain_text("globex.yaml: budgets")
    assert admin(gateway, "/admin/policies")["version"] == before


def test_a_candidate_is_replayed_on_logged_requests(browser: Browser, gateway: RunningGateway) -> None:
    rows = [row for row in gateway.request_rows(REQUESTS) if row["tenant"] == "globex"]
    with opened(browser, gateway) as (page, watched):
        show(page, gateway, "policies")
        page.fill("#candidate", GLOBEX)
        page.select_option("select", "globex")
        page.click("text=Simulate on logged requests")
        told = page.locator("section", has_text="What would a change do?").locator("[role=status]")
        expect(told.locator(".summary")).to_contain_text(f"{len(rows)} requests replayed", timeout=30_000)
        expect(told.locator("tbody")).to_contain_text("Within SLA")
        assert watched.console_errors == []


def test_savings_are_told_by_source_with_what_the_holdout_shows(browser: Browser, gateway: RunningGateway) -> None:
    told = admin(gateway, "/admin/savings?range=24h")
    overview = admin(gateway, "/admin/overview?range=24h")["total"]
    saved = sum(one["saved_nano_usd"] or 0 for one in told["sources"])
    assert saved == overview["baseline_nano_usd"] - overview["cost_nano_usd"]
    with opened(browser, gateway) as (page, _):
        show(page, gateway, "overview")
        panel = page.locator("section", has_text="Saved, by source")
        expect(panel).to_contain_text("Not measured: no policy holds requests out")
        expect(panel.locator("tbody tr")).to_have_count(len(told["sources"]) + len(told["beside"]))


def test_pages_are_reached_by_keyboard(browser: Browser, gateway: RunningGateway) -> None:
    with opened(browser, gateway) as (page, _):
        page.keyboard.press("g")
        page.keyboard.press("r")
        expect(page.locator("h1")).to_have_text("Requests")
        page.wait_for_selector("tbody tr")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("req_")


def test_a_wrong_key_is_told_and_lets_nobody_in(browser: Browser, gateway: RunningGateway) -> None:
    page = browser.new_page()
    page.goto(gateway.admin_url)
    page.fill("#key", "hga_" + "0" * 60)
    page.click("button[type=submit]")
    expect(page.locator("[role=alert]")).to_be_visible()
    assert page.locator("nav").count() == 0
    page.close()


def test_logging_out_ends_the_session(browser: Browser, gateway: RunningGateway) -> None:
    with opened(browser, gateway) as (page, _):
        page.click("text=Log out")
        page.wait_for_selector("#key")
        page.reload()
        page.wait_for_selector("#key")
        assert page.locator("nav").count() == 0


def test_a_new_request_appears_by_itself(browser: Browser, gateway: RunningGateway) -> None:
    with opened(browser, gateway) as (page, _):
        show(page, gateway, "requests")
        first = page.locator("tbody tr").first
        expect(first).not_to_contain_text("live-tail")
        body = {"model": "live-tail", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": f"Bearer {gateway.key('globex')}"}
        httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, trust_env=False)
        expect(page.locator("tbody tr", has_text="model_not_found")).to_have_count(1, timeout=15_000)


def test_a_cookie_changes_nothing_without_the_dashboards_own_header(gateway: RunningGateway) -> None:
    with httpx.Client(base_url=gateway.admin_url, trust_env=False) as client:
        assert client.post("/admin/login", json={"key": owner_key(gateway)}).status_code == 200
        assert client.get("/admin/policies").status_code == 200
        assert client.post("/admin/policies/reload").status_code == 401
        assert client.post("/admin/policies/reload", headers={"x-headgate-dashboard": "1"}).status_code == 200


def test_the_page_may_load_nothing_from_elsewhere(gateway: RunningGateway) -> None:
    answer = httpx.get(f"{gateway.admin_url}/dashboard", trust_env=False)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert httpx.get(f"{gateway.admin_url}/dashboard/../compose.py", trust_env=False).status_code in (401, 404)
