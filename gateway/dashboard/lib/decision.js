// A routing decision: its sentences, its candidates, and whether deciding again agrees.
import { html, Table, Badge, ms, usd, percent } from '/dashboard/lib/ui.js';

/** One sentence on how a request ended, from its row in the log. */
export function inWords(columns, attempts) {
  const tries = attempts.length === 1 ? 'one attempt' : `${attempts.length} attempts`;
  if (columns.error_code) return html`Ended with <code>${columns.error_code}</code>${attempts.length ? ` after ${tries}` : ' before any deployment was asked'}.`;
  if (columns.reason === 'cache') return html`Served from the cache (<b>${columns.cache}</b>${columns.similarity === null ? '' : `, similarity ${columns.similarity.toFixed(3)}`}); the entry was made by ${columns.deployment}.`;
  return html`Answered by <b>${columns.deployment}</b> (${columns.tier}, <code>${columns.reason}</code>) in ${ms(columns.total_ms)}.${columns.degraded_from ? ` The tier ${columns.degraded_from} was wanted.` : ''}${attempts.length > 1 ? ` It took ${tries}.` : ''}`;
}

const shown = (value) => (value === null || value === undefined ? '–' : typeof value === 'object' ? JSON.stringify(value) : String(value));
const Pairs = ({ of }) => html`<dl class="pairs">${Object.entries(of).map(([name, value]) => html`<div><dt><code>${name}</code></dt><dd>${shown(value)}</dd></div>`)}</dl>`;

export function Decision({ told }) {
  const { decision, words, identical, differs, changed } = told;
  const { weighing } = decision.outcome;
  return html`
    <ul class="words">${words.map((sentence) => html`<li>${sentence}</li>`)}</ul>
    <p>${identical ? html`<${Badge} tone="good">decided again: byte-identical<//>` : html`<${Badge} tone="bad">decided again: differs in ${differs.join(', ')}<//>`}
      ${changed.map((what) => html` <${Badge} tone="fair">${what} changed since<//>`)}</p>
    ${weighing && html`<${Table} label="Candidates" rows=${weighing.candidates} empty="The plan had no candidates." columns=${[
      { name: 'Deployment', of: (one) => one.deployment }, { name: 'Tier', of: (one) => one.tier },
      { name: 'Predicted quality', number: true, of: (one) => (one.predicted_quality === null ? '–' : percent(one.predicted_quality, 1)) },
      { name: 'Predicted TTFT', number: true, of: (one) => ms(one.ttft_ms) }, { name: 'Predicted total', number: true, of: (one) => ms(one.total_ms) },
      { name: 'Expected cost', number: true, of: (one) => usd(one.expected_nano_usd) }, { name: 'At worst', number: true, of: (one) => usd(one.worst_case_nano_usd) },
      { name: 'Verdict', of: (one) => (one.excluded_by ? html`<${Badge} tone="fair">${one.excluded_by.replaceAll('_', ' ')}<//>` : one.deployment === decision.outcome.steps[0]?.deployment ? html`<${Badge} tone="good">chosen<//>` : html`<${Badge}>might have<//>`) },
    ]} />`}
    <details><summary>The record as it is kept</summary><h3>Versions</h3><${Pairs} of=${decision.versions} /><h3>Facts</h3><${Pairs} of=${decision.inputs.facts} /><h3>Steering</h3><${Pairs} of=${decision.inputs.steering} /><h3>Standing</h3><${Pairs} of=${decision.inputs.standing} /></details>`;
}
