// The tiers' deployments and the engines that the gateway hosts: state, load and memory.
import { html, useLoad, Loaded, Panel, Table, State, Empty, ms, count, percent, Money } from '/dashboard/lib/ui.js';
import { get } from '/dashboard/lib/api.js';
import { Ranges, REFRESH_MS } from '/dashboard/lib/range.js';

const bytes = (n) => (n === null || n === undefined ? '–' : n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : `${(n / 1e6).toFixed(0)} MB`);
const seconds = (n) => (n === null || n === undefined ? '–' : n < 120 ? `${Math.round(n)} s` : n < 7200 ? `${Math.round(n / 60)} min` : `${(n / 3600).toFixed(1)} h`);

export function Engines({ values, go }) {
  const range = values.range ?? '1h';
  const state = useLoad(async () => {
    const [overview, deployments] = await Promise.all([get('/admin/overview', { range }), get('/admin/deployments')]);
    return { overview, deployments: deployments.deployments };
  }, [range], 5000);
  return html`
    <div class="title"><h1>Engines</h1><${Ranges} value=${range} onChange=${(next) => go('engines', { range: next })} /></div>
    <${Loaded} state=${state}>${({ overview, deployments }) => {
      const sums = new Map(overview.tiers.map((group) => [group.labels[1], group]));
      return html`<div class="grid">
        <${Panel} title="Deployments" note="as the planner sees them now" wide>
          <${Table} label="Deployments" rows=${deployments} empty="No deployment is configured." columns=${[
            { name: 'Deployment', of: (one) => one.name }, { name: 'Tiers', of: (one) => one.tiers.join(', ') || '–' }, { name: 'Model', of: (one) => one.model },
            { name: 'State', of: (one) => html`<${State} value=${one.readiness} />` }, { name: 'Hosted', of: (one) => (one.hosted ? 'here' : 'remote') },
            { name: 'Requests', number: true, of: (one) => count(sums.get(one.name)?.requests) },
            { name: 'Output tokens', number: true, of: (one) => count(sums.get(one.name)?.output_tokens) },
            { name: 'Cost', number: true, of: (one) => html`<${Money} nano=${sums.get(one.name)?.cost_nano_usd ?? 0} />` },
            { name: 'Queue', number: true, of: (one) => ms(one.forecast?.queue_ms) },
            { name: 'Next TTFT', number: true, of: (one) => (one.forecast ? ms(one.forecast.queue_ms + one.forecast.base_ms) : '–') },
            { name: 'Next TPOT', number: true, of: (one) => ms(one.forecast?.ms_per_output_token) },
          ]} /><//>
        ${deployments.filter((one) => one.engine).map((one) => html`<${Panel} title=${one.name} note=${one.engine.kind}><dl class="pairs">
          ${[['State', html`<${State} value=${one.engine.state} />`], ['Process', one.engine.pid ?? '–'], ['Up', seconds(one.engine.up_s)], ['Restarts', count(one.engine.restarts)], ['Memory', bytes(one.engine.resident_bytes)], ['Running', count(one.engine.running)], ['Waiting', count(one.engine.waiting)], ['Last problem', one.engine.problem ?? 'none']]
            .map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl><//>`)}
      </div>`; }}<//>`;
}
