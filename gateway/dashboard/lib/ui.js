// What every page is made of: preact with htm, formats in the viewer's own zone, and small parts.
export { html, render, useState, useEffect, useRef, useMemo, useCallback } from '/dashboard/vendor/htm-preact-3.1.1.module.js';
import { html, useState, useEffect, useRef } from '/dashboard/vendor/htm-preact-3.1.1.module.js';

const NANO = 1e9;
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const clock = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' };
const day = { year: 'numeric', month: 'short', day: 'numeric' };
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export const count = (n) => whole.format(n ?? 0);
export const percent = (part, of, digits = 1) => (of ? `${((100 * part) / of).toFixed(digits)} %` : '–');
export const timeOf = (ms) => new Intl.DateTimeFormat(undefined, clock).format(ms);
export const dateTimeOf = (ms) => new Intl.DateTimeFormat(undefined, { ...day, ...clock }).format(ms);

/** Exact decimal USD of whole nano-USD, as the ledger writes it. */
export function exactUsd(nano) {
  if (nano === null || nano === undefined) return '–';
  const sign = nano < 0 ? '-' : '';
  const value = BigInt(Math.abs(nano));
  const fraction = String(value % 1000000000n).padStart(9, '0').replace(/0+$/, '');
  return `${sign}$${value / 1000000000n}${fraction ? `.${fraction}` : ''}`;
}

/** USD for reading: to the cent from a dollar up, to three significant digits below; the exact amount is in the title. */
export function usd(nano) {
  if (nano === null || nano === undefined) return '–';
  const value = nano / NANO;
  if (value === 0) return '$0';
  if (Math.abs(value) >= 0.995) return `${value < 0 ? '-' : ''}$${Math.abs(value).toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  return `${value < 0 ? '-' : ''}$${Number(Math.abs(value).toPrecision(3)).toLocaleString(undefined, { maximumFractionDigits: 12 })}`;
}

export const nanoOfText = (text) => Math.round(Number(text) * NANO);

export function ms(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 10 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}

export const Money = ({ nano }) => html`<span title=${exactUsd(nano)}>${usd(nano)}</span>`;

/** Loads with `load`, again every `everyMs`; keeps what it has while a later load fails, and says so. */
export function useLoad(load, inputs, everyMs = 0) {
  const [state, setState] = useState({ value: null, error: null, loading: true });
  const latest = useRef(0);
  useEffect(() => {
    const mine = ++latest.current;
    let timer = 0;
    setState((old) => ({ ...old, loading: true }));
    const once = async () => {
      try {
        const value = await load();
        if (latest.current === mine) setState({ value, error: null, loading: false });
      } catch (error) {
        if (latest.current === mine) setState((old) => ({ value: old.value, error, loading: false }));
      }
      if (everyMs && latest.current === mine) timer = setTimeout(() => (document.hidden ? (timer = setTimeout(once, everyMs)) : once()), everyMs);
    };
    once();
    return () => { latest.current++; clearTimeout(timer); };
  }, inputs);
  return state;
}

export const Problem = ({ error }) => error && html`<p class="problem" role="alert">${error.message}</p>`;
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** A page part that shows what was loaded, or why there is nothing. */
export function Loaded({ state, children }) {
  if (state.value === null) return state.error ? html`<${Problem} error=${state.error} />` : html`<p class="empty" aria-busy="true">Loading …</p>`;
  return html`<${Problem} error=${state.error} />${children(state.value)}`;
}

export const Panel = ({ title, note, children, wide }) => html`
  <section class=${wide ? 'panel wide' : 'panel'}>
    <header><h2>${title}</h2>${note && html`<span class="note">${note}</span>`}</header>
    ${children}
  </section>`;

export const Figure = ({ name, value, detail, tone, title }) => html`
  <div class=${`figure ${tone ?? ''}`} title=${title}>
    <dt>${name}</dt><dd>${value}</dd>${detail && html`<dd class="detail">${detail}</dd>`}
  </div>`;

/** columns: [{ name, of(row), number?, title? }] */
export function Table({ columns, rows, onRow, empty = 'Nothing here yet.', label, selected }) {
  if (!rows.length) return html`<${Empty}>${empty}<//>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>
    <table>
      <thead><tr>${columns.map((c) => html`<th scope="col" class=${c.number ? 'number' : ''}>${c.name}</th>`)}</tr></thead>
      <tbody>${rows.map((row, at) => html`
        <tr class=${`${onRow ? 'link' : ''} ${selected === at ? 'selected' : ''}`} onClick=${onRow && (() => onRow(row))}>
          ${columns.map((c) => html`<td class=${c.number ? 'number' : ''} data-name=${c.name}>${c.of(row)}</td>`)}
        </tr>`)}
      </tbody>
    </table></div>`;
}

export const Bar = ({ part, mark, tone, label }) => html`
  <svg class=${`bar ${tone ?? ''}`} viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=${label}>
    <rect class="track" width="100" height="8" rx="1" />
    <rect class="fill" width=${Math.max(0, Math.min(100, part * 100))} height="8" rx="1" />
    ${mark !== undefined && html`<rect class="mark" x=${Math.max(0, Math.min(99, mark * 100))} width="1" height="8" />`}
  </svg>`;

export const Badge = ({ tone, children }) => html`<span class=${`badge ${tone ?? ''}`}>${children}</span>`;

const TONES = { ready: 'good', ok: 'good', 200: 'good', loading: 'fair', warming: 'fair', starting: 'fair', draining: 'fair', down: 'bad', failed: 'bad' };
export const State = ({ value }) => html`<${Badge} tone=${TONES[value] ?? ''}>${value}<//>`;

export function StatusBadge({ status }) {
  return html`<${Badge} tone=${status === 200 ? 'good' : status >= 500 ? 'bad' : 'fair'}>${status}<//>`;
}
