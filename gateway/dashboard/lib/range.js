// The window of time that a page looks at; it is part of the address, so that a view can be shared.
import { html } from '/dashboard/lib/ui.js';

export const RANGES = ['15m', '1h', '6h', '24h', '7d', '30d'];
export const REFRESH_MS = 10000;

export const Ranges = ({ value, onChange }) => html`<div class="ranges" role="group" aria-label="Window of time">
  ${RANGES.map((range) => html`<button class=${range === value ? 'on' : ''} aria-pressed=${range === value} onClick=${() => onChange(range)}>${range}</button>`)}
</div>`;
