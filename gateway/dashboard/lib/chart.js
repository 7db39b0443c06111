// Charts by uPlot: time on x in the viewer's zone, one series per tier, stacked or as lines, colours from the style sheet.
import { html, useEffect, useRef, usd, ms, count } from '/dashboard/lib/ui.js';

const FORMATS = { count, usd: (v) => usd(v), ms };
const HEIGHT = 190;

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A tier has the same colour in every chart; the cache has one of its own. */
const colourOf = (names, name) => {
  const tiers = names.filter((one) => one !== 'cache').sort().reverse();
  return ink(name === 'cache' ? '--series-3' : `--series-${[1, 2, 4, 5, 6][tiers.indexOf(name) % 5]}`);
};

/** Fill the steps in which nothing happened, so that a gap in traffic looks like one. */
export function columns(window, points, names, valueOf, missing) {
  const at = new Map();
  const starts = [];
  for (let s = window.start_s; s < window.end_s; s += window.span_s) { at.set(s, starts.length); starts.push(s); }
  const series = names.map(() => starts.map(() => missing));
  for (const point of points) {
    const x = at.get(point.starts_at_s), y = names.indexOf(point.served_by);
    if (x !== undefined && y >= 0) series[y][x] = valueOf(point);
  }
  return [starts, ...series];
}

function stacked(data) {
  const sums = data[0].map(() => 0);
  const result = data.slice(1).map((values) => values.map((value, x) => (sums[x] += value ?? 0)));
  return [data[0], ...result];
}

function draw(element, { window, names, data, format, stack, limits }) {
  const show = FORMATS[format];
  const shown = stack ? stacked(data) : data;
  const text = ink('--muted'), grid = { stroke: ink('--line'), width: 1 };
  const order = stack ? names.map((_, at) => names.length - 1 - at) : names.map((_, at) => at);
  const bars = uPlot.paths.bars({ size: [0.9, 60], gap: 1 });
  const options = {
    width: Math.max(240, element.clientWidth), height: HEIGHT,
    scales: { x: { time: true, range: [window.start_s - (stack ? window.span_s / 2 : 0), window.end_s] }, y: { range: (_, __, top) => [0, top > 0 ? top * 1.08 : 1] } },
    legend: { live: true },
    cursor: { y: false },
    axes: [
      { stroke: text, grid: { show: false }, ticks: grid, values: (_, ticks, __, ___, step) => ticks.map((t) => new Intl.DateTimeFormat(undefined, step >= 86400 ? { month: 'short', day: 'numeric' } : { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(t * 1000)) },
      { stroke: text, grid, ticks: { show: false }, size: 68, values: (_, ticks) => ticks.map((t) => show(t)) },
    ],
    series: [
      { label: 'Time', value: (_, t) => (t === null || t === undefined ? '–' : new Intl.DateTimeFormat(undefined, { dateStyle: 'short', timeStyle: 'short', hourCycle: 'h23' }).format(t * 1000)) },
      ...order.map((at) => ({
        label: names[at], stroke: colourOf(names, names[at]), width: stack ? 0 : 2, spanGaps: false, points: { show: !stack, size: 4 },
        fill: stack ? colourOf(names, names[at]) : undefined, paths: stack ? bars : undefined,
        value: (_, __, ___, x) => (x === null || x === undefined || data[at + 1][x] === null ? '–' : show(data[at + 1][x])),
      })),
      ...(limits ?? []).map((limit) => ({ label: limit.name, stroke: ink('--bad'), width: 1, dash: [5, 4], points: { show: false }, value: () => show(limit.value) })),
    ],
  };
  const flat = (limits ?? []).map((limit) => shown[0].map(() => limit.value));
  return new uPlot(options, [shown[0], ...order.map((at) => shown[at + 1]), ...flat], element);
}

/** props: window, names, data ([x, ...series]), format: count | usd | ms, stack, limits [{ name, value }], label */
export function Chart(props) {
  const element = useRef(null);
  useEffect(() => {
    let plot = draw(element.current, props);
    const again = () => { plot.destroy(); plot = draw(element.current, props); };
    const sized = new ResizeObserver(() => plot.setSize({ width: Math.max(240, element.current.clientWidth), height: HEIGHT }));
    sized.observe(element.current);
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    scheme.addEventListener('change', again);
    addEventListener('headgate-theme', again);
    return () => { sized.disconnect(); scheme.removeEventListener('change', again); removeEventListener('headgate-theme', again); plot.destroy(); };
  }, [JSON.stringify([props.window, props.names, props.data, props.limits])]);
  return html`<div class="chart" role="img" aria-label=${props.label} ref=${element}></div>`;
}
