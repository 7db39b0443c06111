// What the cache served and what is known of its errors; near-hits, and a verdict on them by whoever looks.
import { html, useLoad, useState, Loaded, Panel, Table, Badge, Problem, count, percent, dateTimeOf } from '/dashboard/lib/ui.js';
import { get, post } from '/dashboard/lib/api.js';

export function Cache({ who }) {
  const [said, setSaid] = useState({});
  const [error, setError] = useState(null);
  const state = useLoad(async () => {
    const [report, stats, near, hits] = await Promise.all([get('/admin/cache/report'), get('/admin/cache/stats'), get('/admin/cache/near-hits', { limit: 50 }), get('/admin/requests', { cache: 'semantic', limit: 50 })]);
    return { report: report.tenants, stats, near: near.near, hits: hits.requests };
  }, [], 15000);
  const judge = async (row, wrong) => {
    try {
      const taken = await post('/admin/cache/feedback', { tenant: row.columns.tenant, request_id: row.columns.request_id, wrong });
      setSaid((old) => ({ ...old, [row.columns.request_id]: taken.known ? (wrong ? 'wrong: entry removed' : 'right') : 'too old to judge' }));
      setError(null);
    } catch (problem) { setError(problem); }
  };
  return html`<div class="title"><h1>Cache</h1></div><${Problem} error=${error} />
    <${Loaded} state=${state}>${({ report, stats, near, hits }) => html`<div class="grid">
      <${Panel} title="Hit rate and the bound on wrong hits" note="over requests that were looked up; the bound is an upper confidence limit" wide>
        <${Table} label="Tenants" rows=${report} empty="No tenant has asked yet." columns=${[
          { name: 'Tenant', of: (one) => one.tenant }, { name: 'Looked up', number: true, of: (one) => count(one.requests) }, { name: 'Exact', number: true, of: (one) => count(one.exact) }, { name: 'Semantic', number: true, of: (one) => count(one.semantic) },
          { name: 'Hit rate', number: true, of: (one) => percent(one.hit_ratio, 1) }, { name: 'Near-hits', number: true, of: (one) => count(one.near) },
          { name: 'Judged', number: true, of: (one) => count(one.judged) }, { name: 'Wrong', number: true, of: (one) => count(one.wrong) },
          { name: 'Wrong hits at most', number: true, of: (one) => html`<${Badge} tone=${one.false_hit_bound <= one.max_false_hit_rate ? 'good' : 'fair'}>${(100 * one.false_hit_bound).toFixed(3)} %<//>` },
          { name: 'Allowed', number: true, of: (one) => `${(100 * one.max_false_hit_rate).toFixed(2)} %` },
          { name: 'Threshold', number: true, of: (one) => (one.threshold === null ? 'exact only' : one.threshold.toFixed(3)) }, { name: 'Calibrated by', of: (one) => one.source },
        ]} /><//>
      <${Panel} title="Newest semantic hits" note=${who.role === 'viewer' ? 'judging takes the role operator' : 'was the answer right for the question?'} wide>
        <${Table} label="Semantic hits" rows=${hits} empty="No semantic hit yet." columns=${[
          { name: 'Time', of: (row) => dateTimeOf(row.columns.received_at_ms) }, { name: 'Tenant', of: (row) => row.columns.tenant },
          { name: 'Request', of: (row) => html`<a href=${`#/requests/${encodeURIComponent(row.columns.request_id)}`}><code>${row.columns.request_id}</code></a>` },
          { name: 'Similarity', number: true, of: (row) => row.columns.similarity?.toFixed(4) ?? '–' },
          { name: 'Verdict', of: (row) => said[row.columns.request_id] ?? html`<button disabled=${who.role === 'viewer'} onClick=${() => judge(row, false)}>Right</button> <button disabled=${who.role === 'viewer'} onClick=${() => judge(row, true)}>Wrong</button>` },
        ]} /><//>
      <${Panel} title="Near-hits" note="similar, recorded, not served">
        <${Table} label="Near-hits" rows=${near} empty="Nothing came near." columns=${[
          { name: 'Time', of: (one) => dateTimeOf(Date.parse(one.at)) }, { name: 'Tenant', of: (one) => one.tenant }, { name: 'Entry', of: (one) => html`<code>${one.entry_id.slice(0, 12)}</code>` },
          { name: 'Similarity', number: true, of: (one) => one.similarity.toFixed(4) }, { name: 'Vetoed by', of: (one) => html`<code>${one.veto}</code>` }, { name: 'Score', number: true, of: (one) => one.score?.toFixed(4) ?? '–' },
        ]} /><//>
      <${Panel} title="Entries and look-ups of this replica"><dl class="pairs">
        ${['exact', 'semantic', 'near', 'miss', 'bypass', 'stored', 'failed'].map((name) => html`<div><dt>${name}</dt><dd>${count(stats[name])}</dd></div>`)}
        ${stats.tenants.map((one) => html`<div><dt>entries of ${one.tenant}</dt><dd>${count(one.entries)}</dd></div>`)}</dl><//>
    </div>`}<//>`;
}
