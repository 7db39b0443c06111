// Spend, savings, hits, latency and tiers of the whole gateway at a glance.
import { html, useLoad, Loaded, Panel, Table, Money, count } from '/dashboard/lib/ui.js';
import { get } from '/dashboard/lib/api.js';
import { Ranges, REFRESH_MS } from '/dashboard/lib/range.js';
import { Budgets, CacheOutcomes, Charts, Deployments, Figures, Routes, Savings, Tiers, hitRate } from '/dashboard/lib/glance.js';

/** The rate and what is known of wrong hits: the worst bound of any tenant that asked. */
function boundOf(report, overview) {
  const cache = hitRate(overview);
  const bounds = report.tenants.filter((one) => one.requests);
  if (!bounds.length) return undefined;
  const worst = bounds.reduce((a, b) => (a.false_hit_bound > b.false_hit_bound ? a : b));
  return `${count(cache.hits)} of ${count(cache.looked)} · wrong hits at most ${(100 * worst.false_hit_bound).toFixed(2)} % of requests (${worst.tenant})`;
}

export function Overview({ values, go }) {
  const range = values.range ?? '1h';
  const state = useLoad(async () => {
    const [overview, report, budgets, savings, deployments] = await Promise.all([get('/admin/overview', { range }), get('/admin/cache/report'), get('/admin/budgets'), get('/admin/savings', { range }), get('/admin/deployments')]);
    return { overview, report, budgets: budgets.budgets, savings, deployments: deployments.deployments };
  }, [range], REFRESH_MS);
  return html`
    <div class="title"><h1>Overview</h1><${Ranges} value=${range} onChange=${(next) => go('overview', { range: next })} /></div>
    <${Loaded} state=${state}>${({ overview, report, budgets, savings, deployments }) => html`
      <${Figures} overview=${overview} bound=${boundOf(report, overview)} />
      <div class="grid">
        <${Charts} overview=${overview} />
        <${Tiers} overview=${overview} readiness=${overview.readiness} />
        <${Deployments} deployments=${deployments} overview=${overview} />
        <div class="stack">
          <${Budgets} budgets=${budgets} go=${go} />
          <${CacheOutcomes} overview=${overview} go=${go} />
          <${Routes} overview=${overview} go=${go} />
        </div>
        <${Savings} savings=${savings} />
        <${Panel} title="Tenants" wide>
          <${Table} label="Tenants" rows=${overview.tenants.slice(0, 10)} empty="No tenant asked in this window." onRow=${(g) => go(`tenants/${encodeURIComponent(g.labels[0])}`, { range })} columns=${[
            { name: 'Tenant', of: (g) => g.labels[0] },
            { name: 'Requests', number: true, of: (g) => count(g.requests) },
            { name: 'Cost', number: true, of: (g) => html`<${Money} nano=${g.cost_nano_usd} />` },
            { name: 'Saved', number: true, of: (g) => html`<${Money} nano=${g.baseline_nano_usd - g.cost_nano_usd} />` },
            { name: 'Refused', number: true, of: (g) => count(g.refused) },
            { name: 'Late', number: true, of: (g) => count(g.late) },
          ]} /><//>
      </div>`}<//>`;
}
