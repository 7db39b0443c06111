// The request log: newest first, filtered by the address, followed live until one scrolls back.
import { html, useState, useEffect, useRef, Table, Money, StatusBadge, Problem, ms, timeOf, dateTimeOf, percent } from '/dashboard/lib/ui.js';
import { get } from '/dashboard/lib/api.js';

const LIVE_MS = 2000;
const PAGE = 50;
const KEPT = 500;
const CHOICES = { cache: ['exact', 'semantic', 'joined', 'miss', 'bypass'], outcome: ['ok', 'refused', 'failed', 'late'] };

export const columnsOf = [
  { name: 'Time', of: (row) => html`<time datetime=${new Date(row.columns.received_at_ms).toISOString()} title=${dateTimeOf(row.columns.received_at_ms)}>${timeOf(row.columns.received_at_ms)}</time>` },
  { name: 'Tenant', of: (row) => row.columns.tenant },
  { name: 'Model', of: (row) => row.columns.model_alias || '–' },
  { name: 'Status', of: (row) => html`<${StatusBadge} status=${row.columns.status} />` },
  { name: 'Cache', of: (row) => row.columns.cache },
  { name: 'Tier', of: (row) => row.columns.tier ?? '–' },
  { name: 'Reason', of: (row) => html`<code>${row.columns.error_code ?? row.columns.reason ?? '–'}</code>` },
  { name: 'Tokens', number: true, of: (row) => (row.columns.output_tokens === null ? '–' : `${row.columns.input_tokens} → ${row.columns.output_tokens}`) },
  { name: 'Cost', number: true, of: (row) => html`<${Money} nano=${row.columns.cost_nano_usd} />` },
  { name: 'TTFT', number: true, of: (row) => (row.columns.stream ? ms(row.columns.ttft_ms) : '–') },
  { name: 'Total', number: true, of: (row) => html`<span class=${row.columns.sla_violated ? 'late' : ''} title=${row.columns.sla_violated ? 'outside the SLA' : undefined}>${ms(row.columns.total_ms)}</span>` },
];

export function Requests({ values, go }) {
  const [log, setLog] = useState({ rows: [], before: null, loaded: false });
  const [live, setLive] = useState(true);
  const [picked, setPicked] = useState(null);
  const [error, setError] = useState(null);
  const filters = JSON.stringify(values);
  const current = useRef(log);
  current.current = log;
  const pickedNow = useRef(null);
  const pick = (id) => { pickedNow.current = id; setPicked(id); };

  useEffect(() => {
    let gone = false;
    pick(null);
    get('/admin/requests', { ...values, limit: PAGE }).then(
      (page) => { if (!gone) { setLog({ rows: page.requests, before: page.searched_to, loaded: true }); setError(null); } },
      (problem) => { if (!gone) setError(problem); },
    );
    return () => { gone = true; };
  }, [filters]);

  useEffect(() => {
    if (!live) return undefined;
    const timer = setInterval(async () => {
      if (document.hidden || !current.current.loaded) return;
      try {
        const after = current.current.rows[0]?.id ?? 0;
        const page = await get('/admin/requests', { ...values, after, limit: PAGE });
        setError(null);
        if (page.requests.length) setLog((old) => ({ ...old, rows: [...page.requests.filter((row) => row.id > (old.rows[0]?.id ?? 0)), ...old.rows].slice(0, KEPT) }));
      } catch (problem) { setError(problem); }
    }, LIVE_MS);
    return () => clearInterval(timer);
  }, [filters, live]);

  useEffect(() => {
    const pressed = (event) => {
      if (/INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
      const { rows } = current.current;
      const at = rows.findIndex((row) => row.id === pickedNow.current);
      if (event.key === 'j' && rows.length) pick(rows[Math.min(at + 1, rows.length - 1)].id);
      if (event.key === 'k' && rows.length) pick(rows[Math.max(at - 1, 0)].id);
      if (event.key === 'Enter' && at >= 0 && event.target === document.body) open(rows[at]);
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, []);
  useEffect(() => document.querySelector('tr.selected')?.scrollIntoView({ block: 'nearest' }), [picked]);

  const open = (row) => go(`requests/${encodeURIComponent(row.columns.request_id)}`);
  const change = (name, value) => go('requests', { ...values, [name]: value || undefined });
  const older = async () => {
    setLive(false);
    try {
      const page = await get('/admin/requests', { ...values, before: log.before, limit: PAGE });
      setLog((old) => ({ ...old, rows: [...old.rows, ...page.requests], before: page.searched_to }));
    } catch (problem) { setError(problem); }
  };
  const Choice = ({ name }) => html`<select aria-label=${name} value=${values[name] ?? ''} onChange=${(e) => change(name, e.target.value)}>
    <option value="">any ${name}</option>${CHOICES[name].map((one) => html`<option value=${one} selected=${values[name] === one}>${one}</option>`)}</select>`;
  const Text = ({ name, hint }) => html`<input type=${name === 'request_id' ? 'search' : 'text'} placeholder=${hint} aria-label=${hint} value=${values[name] ?? ''} onChange=${(e) => change(name, e.target.value.trim())} />`;
  return html`
    <div class="title"><h1>Requests</h1><button aria-pressed=${live} class=${live ? 'on' : ''} onClick=${() => setLive(!live)}>${live ? '● live' : 'paused'}</button></div>
    <div class="filters"><${Text} name="request_id" hint="request id" /><${Text} name="tenant" hint="tenant" /><${Text} name="tier" hint="tier" /><${Text} name="reason" hint="reason" /><${Choice} name="cache" /><${Choice} name="outcome" />
      ${filters !== '{}' && html`<button onClick=${() => go('requests')}>Clear</button>`}</div>
    <${Problem} error=${error} />
    ${log.loaded && html`<section class="panel wide"><${Table} label="Requests" columns=${columnsOf} rows=${log.rows} selected=${log.rows.findIndex((row) => row.id === picked)} onRow=${open} empty=${filters === '{}' ? 'No request yet. Send one to the public listener, and it appears here.' : 'No request fits these filters.'} /></section>`}
    ${log.before !== null && log.loaded && html`<p class="more"><button onClick=${older}>Older requests</button></p>`}`;
}
