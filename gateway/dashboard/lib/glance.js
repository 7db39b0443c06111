// A window at a glance: the figures, charts and tables that the overview and a tenant's page share.
import { html, Figure, Panel, Table, Money, Bar, Badge, State, count, percent, usd, ms, exactUsd, nanoOfText, dateTimeOf, Empty } from '/dashboard/lib/ui.js';
import { Chart, columns } from '/dashboard/lib/chart.js';

const HITS = ['exact', 'semantic', 'joined'];
export const sumOf = (groups, of) => groups.reduce((sum, group) => sum + of(group), 0);

/** What was not spent, by source: answers from the cache, and cheaper tiers than the dearest. */
export function savings(overview) {
  const hits = overview.cache.filter((group) => HITS.includes(group.labels[0]));
  const cache = sumOf(hits, (group) => group.baseline_nano_usd - group.cost_nano_usd);
  const total = overview.total.baseline_nano_usd - overview.total.cost_nano_usd;
  return { total, cache, routing: total - cache, baseline: overview.total.baseline_nano_usd };
}

export function hitRate(overview) {
  const looked = sumOf(overview.cache.filter((group) => group.labels[0] !== 'bypass'), (group) => group.requests);
  return { hits: sumOf(overview.cache.filter((group) => HITS.includes(group.labels[0])), (group) => group.requests), looked };
}

export function Figures({ overview, bound }) {
  const { total } = overview;
  const saved = savings(overview), cache = hitRate(overview);
  const exact = overview.percentiles.every((one) => one.error_ratio === 0);
  const slowest = overview.percentiles.filter((one) => one.served_by && one.served_by !== 'cache');
  return html`<dl class="figures">
    <${Figure} name="Requests" value=${count(total.requests)} detail=${`${count(total.answered)} answered · ${count(total.refused)} refused · ${count(total.failed)} failed`} tone=${total.failed ? 'bad' : ''} />
    <${Figure} name="Cost" value=${usd(total.cost_nano_usd)} title=${exactUsd(total.cost_nano_usd)} detail=${total.requests ? `${usd((1000 * total.cost_nano_usd) / total.requests)} per 1,000 requests` : 'no requests'} />
    <${Figure} name="Saved" value=${usd(saved.total)} title=${exactUsd(saved.total)} detail=${`cache ${usd(saved.cache)} · routing ${usd(saved.routing)} · of ${usd(saved.baseline)} without both`} tone="good" />
    <${Figure} name="Cache hits" value=${percent(cache.hits, cache.looked)} detail=${bound ?? `${count(cache.hits)} of ${count(cache.looked)} looked up`} />
    <${Figure} name="Within SLA" value=${percent(total.answered - total.late, total.answered)} detail=${`${count(total.late)} late`} tone=${total.late ? 'fair' : ''} />
    <${Figure} name="Total, p95" value=${slowest.map((one) => ms(one.total_ms.p95)).join(' · ') || '–'} detail=${slowest.length ? `${slowest.map((one) => one.served_by).join(' · ')}, ${exact ? 'exact' : 'within 1 %'}` : 'no answers'} />
  </dl>`;
}

export function Charts({ overview, limits = [] }) {
  const names = [...new Set(overview.series.map((point) => point.served_by))].sort().filter(Boolean);
  if (!names.length) return html`<${Panel} title="Over time" wide><${Empty}>No answered requests in this window. Send one, or widen the window.<//><//>`;
  const tiers = names.filter((name) => name !== 'cache');
  const { window, series } = overview;
  const step = window.span_s === 60 ? 'per minute' : 'per hour';
  return html`
    <${Panel} title="Requests" note=${step}><${Chart} label="Requests over time by who answered" window=${window} names=${names} stack format="count" data=${columns(window, series, names, (p) => p.requests, 0)} /><//>
    <${Panel} title="Cost" note=${step}><${Chart} label="Cost over time by tier" window=${window} names=${tiers} stack format="usd" data=${columns(window, series, tiers, (p) => p.cost_nano_usd, 0)} /><//>
    <${Panel} title="Time to first token, p95" note="streams"><${Chart} label="95th percentile of the time to first token over time" window=${window} names=${names} format="ms" limits=${limits.filter((l) => l.kind === 'ttft_ms')} data=${columns(window, series, names, (p) => p.ttft_p95_ms, null)} /><//>
    <${Panel} title="Total time, p95" note="answered requests"><${Chart} label="95th percentile of the total time over time" window=${window} names=${names} format="ms" limits=${limits.filter((l) => l.kind === 'total_ms')} data=${columns(window, series, names, (p) => p.total_p95_ms, null)} /><//>`;
}

export function Tiers({ overview, readiness }) {
  const rows = overview.tiers.filter((group) => group.labels[1]);
  const answered = sumOf(rows, (group) => group.requests);
  const latency = (served_by) => overview.percentiles.find((one) => one.served_by === served_by);
  return html`<${Panel} title="Tiers and deployments" note="cache hits count for who made the entry" wide>
    <${Table} label="Tiers and deployments" rows=${rows} empty="No deployment answered in this window." columns=${[
      { name: 'Tier', of: (g) => html`${g.labels[0]} ${readiness?.[g.labels[0]] && html`<${State} value=${readiness[g.labels[0]]} />`}` },
      { name: 'Deployment', of: (g) => g.labels[1] },
      { name: 'Requests', number: true, of: (g) => count(g.requests) },
      { name: 'Share', number: true, of: (g) => percent(g.requests, answered) },
      { name: 'Output tokens', number: true, of: (g) => count(g.output_tokens) },
      { name: 'Cost', number: true, of: (g) => html`<${Money} nano=${g.cost_nano_usd} />` },
      { name: 'Late', number: true, of: (g) => count(g.late) },
      { name: 'TTFT p50 / p95', number: true, of: (g) => `${ms(latency(g.labels[0])?.ttft_ms.p50)} / ${ms(latency(g.labels[0])?.ttft_ms.p95)}` },
      { name: 'Total p50 / p95', number: true, of: (g) => `${ms(latency(g.labels[0])?.total_ms.p50)} / ${ms(latency(g.labels[0])?.total_ms.p95)}` },
    ]} /><//>`;
}

/** Who can answer, in what state and under what load, and what the next request may expect there. */
export function Deployments({ deployments, overview }) {
  const sums = new Map(overview.tiers.map((group) => [group.labels[1], group]));
  return html`<${Panel} title="Engines and deployments now" note="as the planner sees them" wide>
    <${Table} label="Engines and deployments" rows=${deployments} empty="No deployment is configured." columns=${[
      { name: 'Deployment', of: (one) => one.name }, { name: 'Tiers', of: (one) => one.tiers.join(', ') || '–' }, { name: 'Model', of: (one) => one.model },
      { name: 'State', of: (one) => html`<${State} value=${one.readiness} />` }, { name: 'Where', of: (one) => (one.hosted ? 'here' : 'remote') },
      { name: 'Under way', number: true, of: (one) => count(one.in_flight) },
      { name: 'Requests', number: true, of: (one) => count(sums.get(one.name)?.requests) },
      { name: 'Output tokens/s', number: true, of: (one) => ((sums.get(one.name)?.output_tokens ?? 0) / Math.max(1, overview.window.end_s - overview.window.start_s)).toFixed(1) },
      { name: 'Queue', number: true, of: (one) => ms(one.forecast?.queue_ms) },
      { name: 'Next TTFT', number: true, of: (one) => (one.forecast ? ms(one.forecast.queue_ms + one.forecast.base_ms) : '–') },
      { name: 'Next TPOT', number: true, of: (one) => ms(one.forecast?.ms_per_output_token) },
    ]} /><//>`;
}

export function Routes({ overview, go, tenant }) {
  const rows = overview.reasons.filter((group) => group.labels[1]);
  const all = sumOf(rows, (group) => group.requests);
  return html`<${Panel} title="Why requests went where they went">
    <${Table} label="Reasons of plans" rows=${rows} empty="No plan was made in this window." onRow=${(g) => go('requests', { tier: g.labels[0], reason: g.labels[1], tenant })} columns=${[
      { name: 'Tier', of: (g) => g.labels[0] || '–' },
      { name: 'Reason', of: (g) => html`<code>${g.labels[1]}</code>` },
      { name: 'Requests', number: true, of: (g) => count(g.requests) },
      { name: 'Share', number: true, of: (g) => percent(g.requests, all) },
      { name: 'Cost', number: true, of: (g) => html`<${Money} nano=${g.cost_nano_usd} />` },
    ]} /><//>`;
}

export function CacheOutcomes({ overview, go, tenant }) {
  const all = sumOf(overview.cache, (group) => group.requests);
  return html`<${Panel} title="Cache">
    <${Table} label="Cache outcomes" rows=${overview.cache} empty="Nothing was looked up in this window." onRow=${(g) => go('requests', { cache: g.labels[0], tenant })} columns=${[
      { name: 'Outcome', of: (g) => html`<code>${g.labels[0]}</code>` },
      { name: 'Requests', number: true, of: (g) => count(g.requests) },
      { name: 'Share', number: true, of: (g) => percent(g.requests, all) },
      { name: 'Saved', number: true, of: (g) => html`<${Money} nano=${g.saved_nano_usd} />` },
    ]} /><//>`;
}

/** Spend against budget and pace: the mark is how far the window has run; a bar beyond it spends ahead of time. */
export function Budgets({ budgets, go, title = 'Budgets', most = 12, wide }) {
  const share = (line) => (Number(line.limit_usd) ? (Number(line.spent_usd) + Number(line.reserved_usd)) / Number(line.limit_usd) : 1);
  const pace = (line) => (line.rolling ? undefined : Math.min(1, (Date.now() - Date.parse(line.starts_at)) / (Date.parse(line.ends_at) - Date.parse(line.starts_at))));
  const rows = [...budgets].sort((a, b) => share(b) - share(a)).slice(0, most);
  const tone = (line) => (share(line) >= 1 ? 'bad' : share(line) > (pace(line) ?? 1) ? 'fair' : 'good');
  return html`<${Panel} title=${title} note="the mark is the window's pace" wide=${wide}>
    <${Table} label="Budgets" rows=${rows} empty="No tenant has a budget." onRow=${go && ((line) => go(`tenants/${encodeURIComponent(line.tenant)}`))} columns=${[
      { name: 'Tenant', of: (line) => html`${line.tenant}${line.key_id && html` <code>${line.key_id}</code>`}${line.user && ` · ${line.user}`}${line.tier && html` <${Badge}>${line.tier}<//>`}` },
      { name: 'Window', of: (line) => html`<span title=${`${dateTimeOf(Date.parse(line.starts_at))} to ${dateTimeOf(Date.parse(line.ends_at))}`}>${line.rolling ? 'rolling ' : ''}${line.window}</span>` },
      { name: 'Spent', number: true, of: (line) => html`<${Money} nano=${nanoOfText(line.spent_usd)} />` },
      { name: 'Limit', number: true, of: (line) => html`<${Money} nano=${nanoOfText(line.limit_usd)} />` },
      { name: 'Used', of: (line) => html`<${Bar} part=${share(line)} mark=${pace(line)} tone=${tone(line)} label=${`${percent(share(line), 1)} used, ${pace(line) === undefined ? 'rolling window' : `${percent(pace(line), 1)} of the window gone`}`} /> ${percent(share(line), 1)}` },
      { name: 'Free', number: true, of: (line) => html`<${Money} nano=${nanoOfText(line.free_usd)} />` },
    ]} /><//>`;
}

/** What the holdout shows this month, in words: a figure with its interval, or why there is none. */
export function measuredWords({ measured, month }) {
  const paths = `${count(measured.routed)} routed and ${count(measured.held_out)} held-out requests in ${month}`;
  if (!measured.routed && !measured.held_out) return 'Not measured: no policy holds requests out (routing.holdout_ratio).';
  if (measured.low === null) return `Not enough evidence yet: ${paths}.`;
  const total = (one) => usd(one * measured.routed);
  const shown = measured.low > 0 || measured.high < 0 ? '' : ' Not enough evidence yet that it is not 0.';
  return `Measured: ${total(measured.value)}, 95 % at any time ${total(measured.low)} to ${total(measured.high)}; ${paths}.${shown}`;
}

const notLedger = (one) => ({ ...one, beside: true });

export function Savings({ savings }) {
  const rows = [...savings.sources, ...savings.beside.map(notLedger)];
  const why = (one) => [one.beside && 'not in the ledger', one.why_not].filter(Boolean).join('; ');
  return html`<${Panel} title="Saved, by source" note="calculated; negative figures are costs">
    <${Table} label="Savings by source" rows=${rows} columns=${[
      { name: 'Source', of: (one) => html`${one.source}${why(one) && html`<small>${why(one)}</small>`}` },
      { name: 'Saved', number: true, of: (one) => (one.saved_nano_usd === null ? 'not measured' : html`<${Money} nano=${one.saved_nano_usd} />`) },
    ]} /><p class="summary">${measuredWords(savings)}</p><//>`;
}
