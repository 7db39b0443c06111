// All tenants, and one tenant: the policy in force, budgets and what is left of them, top routes, latency against the SLA.
import { html, useLoad, Loaded, Panel, Table, Money, Badge, ms, count, percent, useState } from '/dashboard/lib/ui.js';
import { get } from '/dashboard/lib/api.js';
import { Ranges, REFRESH_MS } from '/dashboard/lib/range.js';
import { Budgets, CacheOutcomes, Charts, Figures, Routes, Savings, Tiers } from '/dashboard/lib/glance.js';

export function Tenants({ values, go }) {
  const range = values.range ?? '24h';
  const [wanted, setWanted] = useState('');
  const state = useLoad(async () => {
    const [policies, overview] = await Promise.all([get('/admin/policies'), get('/admin/overview', { range })]);
    return { policies: policies.tenants, sums: new Map(overview.tenants.map((group) => [group.labels[0], group])) };
  }, [range], REFRESH_MS);
  const zero = { requests: 0, cost_nano_usd: 0, baseline_nano_usd: 0, refused: 0, failed: 0, late: 0, answered: 0 };
  return html`
    <div class="title"><h1>Tenants</h1>
      <input type="search" placeholder="Find a tenant" aria-label="Find a tenant" value=${wanted} onInput=${(e) => setWanted(e.target.value)} />
      <${Ranges} value=${range} onChange=${(next) => go('tenants', { range: next })} /></div>
    <${Loaded} state=${state}>${({ policies, sums }) => html`<div class="grid"><${Panel} title=${`${count(policies.length)} with a policy`} wide>
      <${Table} label="Tenants" rows=${policies.filter((one) => one.tenant.includes(wanted)).slice(0, 500)} empty="No tenant of that name." onRow=${(one) => go(`tenants/${encodeURIComponent(one.tenant)}`, { range })} columns=${[
        { name: 'Tenant', of: (one) => one.tenant },
        { name: 'Requests', number: true, of: (one) => count((sums.get(one.tenant) ?? zero).requests) },
        { name: 'Cost', number: true, of: (one) => html`<${Money} nano=${(sums.get(one.tenant) ?? zero).cost_nano_usd} />` },
        { name: 'Saved', number: true, of: (one) => { const g = sums.get(one.tenant) ?? zero; return html`<${Money} nano=${g.baseline_nano_usd - g.cost_nano_usd} />`; } },
        { name: 'Refused', number: true, of: (one) => count((sums.get(one.tenant) ?? zero).refused) },
        { name: 'Within SLA', number: true, of: (one) => { const g = sums.get(one.tenant) ?? zero; return percent(g.answered - g.late, g.answered); } },
        { name: 'Policy', of: (one) => html`<code>${one.version.slice(0, 12)}</code>` },
      ]} /><//></div>`}<//>`;
}

const isNothing = (value) => value === null || (typeof value === 'object' && Object.values(value).every(isNothing));

/** The policy as its YAML reads, one key a line; what is not set is left out. */
function yamlOf(value, indent = '') {
  if (typeof value !== 'object') return String(value);
  const block = (inner) => (typeof inner === 'object' && !inner.every?.((one) => typeof one !== 'object'));
  const inline = (inner) => (Array.isArray(inner) ? `[${inner.join(', ')}]` : String(inner));
  if (Array.isArray(value)) return value.map((one) => `${indent}- ${block(one) ? yamlOf(one, `${indent}  `).trimStart() : inline(one)}`).join('\n');
  return Object.entries(value).filter(([, inner]) => !isNothing(inner))
    .map(([key, inner]) => (block(inner) ? `${indent}${key}:\n${yamlOf(inner, `${indent}  `)}` : `${indent}${key}: ${inline(inner)}`)).join('\n');
}

function PolicyTable({ policy: { tenant, version, ...rules } }) {
  return html`<${Panel} title="Policy in force" note=${`version ${version.slice(0, 12)}`} wide><pre class="columns" tabindex="0" aria-label=${`Policy of ${tenant}`}>${yamlOf(rules)}</pre><//>`;
}

const ratio = (value) => (value === null ? '–' : percent(value, 1, 2));
const three = (values, limit) => `${['p50', 'p95', 'p99'].map((name) => ms(values[name])).join(' / ')}${limit ? ` (${ms(limit)})` : ''}`;
const rescued = ({ count: times, cost_nano_usd: nano }) => (times ? html`${count(times)} (<${Money} nano=${nano} />)` : '0');

/** How well the SLA was kept; the burn rate says how fast the error budget goes, 1 being just in time. */
const Attainment = ({ lines }) => html`<${Panel} title="SLA" note="answers from the cache are not judged" wide>
  <${Table} label="SLA by tier" rows=${lines} empty="No deployment was asked in this window." columns=${[
    { name: 'Tier', of: (line) => line.tier || '–' },
    { name: 'Kept', number: true, of: (line) => html`<span title=${`${count(line.missed)} of ${count(line.judged)} missed; the objective is ${ratio(line.objective_ratio)}`}>${ratio(line.attainment_ratio)}</span>` },
    { name: 'Budget left', number: true, of: (line) => (line.budget_left_ratio < 0 ? html`<${Badge} tone="bad">${percent(line.budget_left_ratio, 1, 0)}<//>` : line.budget_left_ratio === null ? '–' : percent(line.budget_left_ratio, 1, 0)) },
    { name: 'Burn 1h / 6h / 3d', number: true, of: (line) => ['1h', '6h', '3d'].map((name) => line.burn_rates[name]?.toFixed(1) ?? '–').join(' / ') },
    { name: 'TTFT p50 / p95 / p99', number: true, of: (line) => three(line.ttft_ms, line.ttft_limit_ms) },
    { name: 'TPOT p50 / p95 / p99', number: true, of: (line) => three(line.tpot_ms) },
    { name: 'Total p50 / p95 / p99', number: true, of: (line) => three(line.total_ms, line.total_limit_ms) },
    { name: 'Retries', number: true, of: (line) => rescued(line.retries) },
    { name: 'Hedges', number: true, of: (line) => rescued(line.hedges) },
    { name: 'Fallbacks', number: true, of: (line) => rescued(line.fallbacks) },
  ]} /><//>`;

export function Tenant({ item, values, go }) {
  const range = values.range ?? '24h';
  const state = useLoad(async () => {
    const [overview, attainment, policy, budgets, savings] = await Promise.all([
      get('/admin/overview', { range, tenant: item }), get('/admin/sla', { range, tenant: item }), get(`/admin/policies/${encodeURIComponent(item)}`), get(`/admin/budgets/${encodeURIComponent(item)}`), get('/admin/savings', { range, tenant: item })]);
    return { overview, attainment: attainment.lines, policy, budgets: budgets.budgets, savings };
  }, [item, range], REFRESH_MS);
  const limits = (policy) => Object.entries(policy.sla).flatMap(([tier, sla]) => ['ttft_ms', 'total_ms'].filter((kind) => sla[kind]).map((kind) => ({ kind, name: `SLA ${tier}`, value: sla[kind] })));
  return html`
    <div class="title"><h1><a href="#/tenants">Tenants</a> / ${item}</h1>
      <a class="button" href=${`/admin/report/${encodeURIComponent(item)}/page`}>Month's report</a>
      <a class="button" href=${`#/requests?tenant=${encodeURIComponent(item)}`}>Requests</a>
      <${Ranges} value=${range} onChange=${(next) => go(`tenants/${encodeURIComponent(item)}`, { range: next })} /></div>
    <${Loaded} state=${state}>${({ overview, attainment, policy, budgets, savings }) => html`
      <${Figures} overview=${overview} />
      <div class="grid">
        <${Budgets} budgets=${budgets} title="Budgets in their present windows" most=${50} wide />
        <${Attainment} lines=${attainment} />
        <${Charts} overview=${overview} limits=${limits(policy)} />
        <${Tiers} overview=${overview} readiness=${overview.readiness} />
        <${Savings} savings=${savings} />
        <div class="stack">
          <${Routes} overview=${overview} go=${go} tenant=${item} />
          <${CacheOutcomes} overview=${overview} go=${go} tenant=${item} />
        </div>
        <${PolicyTable} policy=${policy} />
      </div>`}<//>`;
}
