// The policies in force, the folder's state, and what a changed file would change.
import { html, useLoad, useRef, useState, Loaded, Panel, Table, Problem, usd, count, percent } from '/dashboard/lib/ui.js';
import { get, post } from '/dashboard/lib/api.js';

const SPANS = ['24h', '7d', '30d', 'all'];
const between = (one, shown) => (one.low === null ? 'too few requests' : `${shown(one.low)} to ${shown(one.high)}`);

/** Then and now of one tenant: what was logged, and what the candidate would have come to. */
function Simulated({ result }) {
  const [one] = result.tenants;
  if (!one) return html`<p class="problem" role="alert">${result.notes.join('; ')}</p>`;
  const ratio = (value) => percent(value, 1);
  const rows = [
    ['Cost', one.then.cost_nano_usd, one.now.cost_nano_usd, usd],
    ...Object.entries(one.now.shares).map(([tier, share]) => [`Answered by ${tier}`, one.then.shares[tier], share, ratio]),
    ...(one.now.sla_attainment ? [['Within SLA', one.then.sla_attainment, one.now.sla_attainment, ratio]] : []),
    ['Cache hits', one.then.hits, one.now.hits, count], ['Refused', one.then.refused, one.now.refused, count],
  ];
  return html`<${Table} label="Then and now" rows=${rows} columns=${[
    { name: 'Figure', of: (row) => row[0] }, { name: 'Then', number: true, of: (row) => row[3](row[1]) },
    { name: 'Now', number: true, of: (row) => row[3](row[2].value) }, { name: '95 % interval', number: true, of: (row) => between(row[2], row[3]) },
  ]} /><p class="summary">${count(one.then.requests)} requests replayed; ${percent(one.kept_ratio, 1)} stay as they were, ${count(one.imputed)} decisions imputed. ${result.notes.join('. ')}.</p>`;
}

function Compare({ tenants }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [replayed, setReplayed] = useState(null);
  const [busy, setBusy] = useState(false);
  const span = useRef(null);
  const simulate = async () => {
    setBusy(true);
    try {
      setReplayed(await post(`/admin/policies/${encodeURIComponent(tenant.current.value)}/simulate`, { text: text.current.value, range: span.current.value }));
      setError(null);
    } catch (problem) { setError(problem); }
    setBusy(false);
  };
  const tenant = useRef(null), text = useRef(null);
  const compare = async (event) => {
    event.preventDefault();
    try {
      setFound(await post(`/admin/policies/${encodeURIComponent(tenant.current.value)}/compare`, { text: text.current.value }));
      setError(null);
    } catch (problem) { setError(problem); }
  };
  return html`<${Panel} title="What would a change do?" note="nothing is put in force" wide>
    <form class="compare" onSubmit=${compare}>
      <label>Tenant <select ref=${tenant}>${tenants.map((one) => html`<option value=${one.tenant}>${one.tenant}</option>`)}</select></label>
      <label for="candidate">The tenant's file as you would like it</label>
      <textarea id="candidate" ref=${text} rows="8" spellcheck="false" placeholder=${'tenant: acme\nrouting: {quality: 0.8}'}></textarea>
      <div><button type="submit">Compare with what is in force</button> <button type="button" disabled=${busy} onClick=${simulate}>${busy ? 'Replaying…' : 'Simulate on logged requests'}</button>
        <label>of <select ref=${span}>${SPANS.map((one) => html`<option value=${one} selected=${one === '7d'}>${one}</option>`)}</select></label></div>
    </form>
    <${Problem} error=${error} />
    ${replayed?.problem && html`<p class="problem" role="alert">${replayed.problem}</p>`}
    ${replayed?.result && html`<div role="status"><${Simulated} result=${replayed.result} /></div>`}
    ${found?.problem && html`<p class="problem" role="alert">${found.problem}</p>`}
    ${found && !found.problem && html`<div role="status"><${Table} label="Changes" rows=${found.changes} empty="Nothing would change." columns=${[
      { name: 'Tenant', of: (one) => one.tenant }, { name: 'Key', of: (one) => html`<code>${one.key}</code>` },
      { name: 'In force', of: (one) => html`<code>${one.before ?? '–'}</code>` }, { name: 'Would be', of: (one) => html`<code>${one.after ?? '–'}</code>` },
    ]} /></div>`}<//>`;
}

export function Policies({ who, go }) {
  const [done, setDone] = useState(null);
  const [error, setError] = useState(null);
  const [turn, setTurn] = useState(0);
  const state = useLoad(async () => {
    const [policies, store] = await Promise.all([get('/admin/policies'), get('/admin/store')]);
    return { policies, store };
  }, [turn], 15000);
  const reload = async () => {
    try { const result = await post('/admin/policies/reload'); setDone(result); setError(null); setTurn(turn + 1); } catch (problem) { setError(problem); }
  };
  return html`
    <div class="title"><h1>Policies</h1><button disabled=${who.role === 'viewer'} title=${who.role === 'viewer' ? 'takes the role operator' : undefined} onClick=${reload}>Reload the folder</button></div>
    <${Problem} error=${error} />
    ${done && html`<p class="summary" role="status">Version <code>${done.version.slice(0, 12)}</code> is in force; ${done.changed.length ? `changed: ${done.changed.join(', ')}` : 'nothing changed'}.</p>`}
    <${Loaded} state=${state}>${({ policies, store }) => html`<div class="grid">
      ${store.policies_problem && html`<${Panel} title="The folder cannot be loaded" note="the version before stays in force" wide><p class="problem">${store.policies_problem}</p><//>`}
      <${Panel} title="In force" note=${`version ${policies.version.slice(0, 12)}`} wide>
        <${Table} label="Policies" rows=${policies.tenants} empty="No tenant has a policy." onRow=${(one) => go(`tenants/${encodeURIComponent(one.tenant)}`)} columns=${[
          { name: 'Tenant', of: (one) => one.tenant }, { name: 'Version', of: (one) => html`<code>${one.version}</code>` },
        ]} /><//>
      <${Compare} tenants=${policies.tenants} />
    </div>`}<//>`;
}
