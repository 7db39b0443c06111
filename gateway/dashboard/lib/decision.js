// A routing decision in words, and its receipt as a table of candidates.
import { html, Table, Badge, ms, usd, percent } from '/dashboard/lib/ui.js';

/** What each token of `x-headgate-reason` means; the list is the one in docs/routing.md. */
export const REASONS = {
  requested: 'the caller named the tier or deployment',
  score: 'the router judged that this tier is the cheapest that suffices',
  prior: 'no model could judge the request, so the prior decided',
  cache: 'the answer came from the cache',
  guard_tools: 'it uses tools, which cheaper tiers were not measured on',
  guard_json: 'it asks for structured output, which cheaper tiers were not measured on',
  guard_media: 'it carries images or audio',
  guard_context: 'its context is longer than what cheaper tiers hold',
  guard_language: 'its language is one that cheaper tiers were not measured on',
  budget: 'the budget had no room for the tier that was wanted',
  loading: 'the tier that was wanted was still loading',
  unhealthy: 'the deployment that was wanted was down',
  rule: 'a rule of the policy names the tier',
  session: 'the session it belongs to stays where it is',
  latency: 'the tier that was wanted would have missed its SLA',
  share: 'the share of the large tier is held at its target',
  pace: 'spend runs ahead of the budget\'s pace',
};

export function inWords(columns, attempts) {
  if (columns.error_code) return html`Ended with <code>${columns.error_code}</code>${attempts.length ? ` after ${attempts.length} ${attempts.length === 1 ? 'attempt' : 'attempts'}` : ' before any deployment was asked'}.`;
  if (columns.reason === 'cache') return html`Served from the cache (<b>${columns.cache}</b>${columns.similarity === null ? '' : `, similarity ${columns.similarity.toFixed(3)}`}); the entry was made by ${columns.deployment}.`;
  const why = REASONS[columns.reason] ?? columns.reason;
  return html`Answered by <b>${columns.deployment}</b> (${columns.tier}) because ${why}.${columns.degraded_from ? ` The tier ${columns.degraded_from} was wanted.` : ''}${attempts.length > 1 ? ` It took ${attempts.length} attempts.` : ''}`;
}

const shown = (value) => (value === null || value === undefined ? '–' : typeof value === 'object' ? JSON.stringify(value) : String(value));

export function Decision({ decision }) {
  const { candidates = [], ...rest } = decision.decision ?? decision;
  return html`
    <${Table} label="Candidates" rows=${candidates} empty="The plan had no candidates." columns=${[
      { name: 'Deployment', of: (one) => one.deployment }, { name: 'Tier', of: (one) => one.tier },
      { name: 'Predicted quality', number: true, of: (one) => (one.quality === undefined || one.quality === null ? '–' : percent(one.quality, 1)) },
      { name: 'Predicted TTFT', number: true, of: (one) => ms(one.ttft_ms) }, { name: 'Predicted total', number: true, of: (one) => ms(one.total_ms) },
      { name: 'Expected cost', number: true, of: (one) => usd(one.expected_cost_nano_usd ?? one.cost_nano_usd) },
      { name: 'Verdict', of: (one) => (one.excluded_by ? html`<${Badge} tone="fair">${one.excluded_by}<//>` : html`<${Badge} tone="good">may answer<//>`) },
    ]} />
    <details><summary>The record as it is kept</summary><dl class="pairs">${Object.entries(rest).map(([name, value]) => html`<div><dt><code>${name}</code></dt><dd>${shown(value)}</dd></div>`)}</dl></details>`;
}
