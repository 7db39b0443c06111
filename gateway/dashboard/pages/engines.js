// The deployments as the planner sees them, and the engines that the gateway hosts: state, load, memory, last words.
import { html, useLoad, useState, Loaded, Panel, State, Problem, ms, count } from '/dashboard/lib/ui.js';
import { get, post } from '/dashboard/lib/api.js';
import { Deployments } from '/dashboard/lib/glance.js';
import { Ranges } from '/dashboard/lib/range.js';

const REFRESH_MS = 5000;
const share = (ratio) => (ratio == null ? '–' : `${(ratio * 100).toFixed(1)} %`);
const bytes = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : `${(n / 1e6).toFixed(0)} MB`);

function Engine({ engine, who }) {
  const [lines, setLines] = useState(null);
  const [error, setError] = useState(null);
  const may = who.role !== 'viewer';
  const does = (action) => async () => {
    try { await action(); setError(null); } catch (problem) { setError(problem); }
  };
  const path = `/admin/engines/${encodeURIComponent(engine.name)}`;
  const asleep = engine.state === 'sleeping';
  return html`<${Panel} title=${engine.name} note=${`${engine.kind} · ${engine.precision}`}>
    <${Problem} error=${error} />
    <dl class="pairs">${[
      ['State', html`<${State} value=${engine.state} />`], ['Model', engine.model], ['Recipe', html`<code>${engine.recipe}</code>`], ['Process group', engine.pid ?? '–'], ['Devices', engine.devices.join(', ')],
      ['Memory declared', bytes(engine.memory_bytes)], ['Requests under way', count(engine.requests)], ['Waiting · in the batch', `${engine.work.queued ?? '–'} · ${engine.work.running ?? '–'}`], ['KV cache used', share(engine.work.kv_usage_ratio)], ['Prefix hits', share(engine.work.prefix_hit_ratio)], ['Drafts accepted', share(engine.work.draft_acceptance_ratio)],
      ['Tokens per second', engine.work.output_tokens_per_s?.toFixed(1) ?? '–'], ['TTFT in the engine', ms(engine.work.ttft_ms)], ['ITL', ms(engine.work.itl_ms)], ['Generation', `${engine.generation} · last reload: ${engine.reload.stage}`],
      ['Restarts', count(engine.restarts)], ['Failures in a row', count(engine.failures)], ['Last problem', engine.last_error ?? 'none'],
    ].map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${may && html`<p><button onClick=${does(() => post(`${path}/reload`))}>Reload</button> <button onClick=${does(() => post(`${path}/${asleep ? 'wake' : 'sleep'}`))}>${asleep ? 'Wake' : 'Let sleep'}</button>
      <button onClick=${does(async () => setLines(lines ? null : (await get(`${path}/logs`)).lines))}>${lines ? 'Hide log' : 'Show log'}</button></p>`}
    ${lines && html`<pre tabindex="0" aria-label=${`Log of ${engine.name}`}>${lines.join('\n') || 'It has written nothing.'}</pre>`}<//>`;
}

export function Engines({ values, go, who }) {
  const range = values.range ?? '1h';
  const state = useLoad(async () => {
    const [overview, deployments, engines] = await Promise.all([get('/admin/overview', { range }), get('/admin/deployments'), get('/admin/engines')]);
    return { overview, deployments: deployments.deployments, engines: engines.engines };
  }, [range], REFRESH_MS);
  return html`
    <div class="title"><h1>Engines</h1><${Ranges} value=${range} onChange=${(next) => go('engines', { range: next })} /></div>
    <${Loaded} state=${state}>${({ overview, deployments, engines }) => html`<div class="grid">
        <${Deployments} deployments=${deployments} overview=${overview} />
        ${engines.map((one) => html`<${Engine} key=${one.name} engine=${one} who=${who} />`)}
      </div>`}<//>`;
}
