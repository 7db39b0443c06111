// One request: what happened when, why it went where it went, what it cost and what it would have cost.
import { html, useLoad, Loaded, Panel, Table, Money, StatusBadge, Badge, Empty, ms, usd, exactUsd, dateTimeOf, percent } from '/dashboard/lib/ui.js';
import { get } from '/dashboard/lib/api.js';
import { inWords, Decision } from '/dashboard/lib/decision.js';

function Waterfall({ columns, attempts }) {
  const total = Math.max(columns.total_ms, 0.001);
  const x = (at) => (100 * Math.max(0, at)) / total;
  const lane = (name, spans) => html`<div class="lane"><span class="lane-name">${name}</span>
    <svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label=${`${name}: ${spans.map((s) => `${s.title}`).join(', ')}`}>
      <rect class="track" width="100" height="10" />
      ${spans.map((span) => html`<rect class=${span.kind} x=${x(span.from)} y="1" height="8" width=${Math.max(0.4, x(span.to) - x(span.from))}><title>${span.title}</title></rect>`)}
    </svg></div>`;
  const began = attempts.length ? attempts[0].started_ms : total;
  return html`<div class="waterfall">
    ${lane('gateway', [{ from: 0, to: began, kind: 'own', title: `until the first attempt ${ms(began)}` }])}
    ${attempts.map((one) => lane(`${one.n} · ${one.deployment}`, [
      { from: one.started_ms, to: one.first_byte_ms ?? one.ended_ms, kind: one.outcome === 'complete' ? 'wait' : 'lost', title: `until the first byte ${ms((one.first_byte_ms ?? one.ended_ms) - one.started_ms)}` },
      ...(one.first_byte_ms === null ? [] : [{ from: one.first_byte_ms, to: one.ended_ms, kind: one.outcome === 'complete' ? 'flow' : 'lost', title: `answer ${ms(one.ended_ms - one.first_byte_ms)}` }]),
    ]))}
    ${columns.ttft_ms !== null && lane('client', [{ from: columns.ttft_ms, to: total, kind: 'sent', title: `first token sent after ${ms(columns.ttft_ms)}` }])}
    <div class="lane axis"><span></span><span class="ends"><span>0</span><span>${ms(total)}</span></span></div></div>`;
}

function Costs({ columns, attempts }) {
  const answering = attempts.findLast((one) => one.outcome === 'complete') ?? attempts.at(-1);
  const lost = attempts.filter((one) => one !== answering).reduce((sum, one) => sum + one.cost_nano_usd, 0);
  const hit = ['exact', 'semantic', 'joined'].includes(columns.cache);
  const rows = [
    ['Answering attempt', columns.cost_nano_usd - lost],
    ...(lost ? [['Other attempts', lost]] : []),
    ['Settled cost', columns.cost_nano_usd],
    ...(columns.baseline_nano_usd === null ? [] : [['Without Headgate (dearest tier, no cache)', columns.baseline_nano_usd], ['Saved', columns.baseline_nano_usd - columns.cost_nano_usd]]),
    ...(hit ? [['Would-be price of the cached answer', columns.saved_nano_usd]] : []),
    ['Held while it ran', columns.reserved_nano_usd],
  ];
  return html`<${Panel} title="Cost"><dl class="pairs">${rows.map(([name, nano]) => html`<div><dt>${name}</dt><dd title=${usd(nano)}>${exactUsd(nano)}</dd></div>`)}</dl><//>`;
}

export function OneRequest({ item }) {
  const state = useLoad(async () => {
    const [row, told] = await Promise.all([get(`/admin/requests/${encodeURIComponent(item)}`), get(`/admin/decisions/${encodeURIComponent(item)}`)]);
    return { ...row, told };
  }, [item]);
  return html`
    <div class="title"><h1><a href="#/requests">Requests</a> / <code>${item}</code></h1></div>
    <${Loaded} state=${state}>${({ columns, attempts, told }) => html`
      <p class="summary"><${StatusBadge} status=${columns.status} /> ${inWords(columns, attempts)}</p>
      <div class="grid">
        <${Panel} title="What happened when" note=${dateTimeOf(columns.received_at_ms)} wide><${Waterfall} columns=${columns} attempts=${attempts} /><//>
        <${Panel} title="Attempts" wide><${Table} label="Attempts" rows=${attempts} empty="No deployment was asked." columns=${[
          { name: '#', of: (one) => one.n }, { name: 'Deployment', of: (one) => one.deployment }, { name: 'Tier', of: (one) => one.tier }, { name: 'Model', of: (one) => one.model },
          { name: 'Outcome', of: (one) => html`<${Badge} tone=${one.outcome === 'complete' ? 'good' : 'bad'}>${one.outcome}<//>` },
          { name: 'HTTP', number: true, of: (one) => one.http_status ?? '–' },
          { name: 'Started', number: true, of: (one) => ms(one.started_ms) }, { name: 'First byte', number: true, of: (one) => ms(one.first_byte_ms) }, { name: 'Ended', number: true, of: (one) => ms(one.ended_ms) },
          { name: 'Tokens', number: true, of: (one) => (one.output_tokens === null ? '–' : `${one.input_tokens} → ${one.output_tokens} (${one.usage_source})`) },
          { name: 'Cost', number: true, of: (one) => html`<${Money} nano=${one.cost_nano_usd} />` }, { name: 'Error', of: (one) => one.error ?? '' },
        ]} /><//>
        <${Costs} columns=${columns} attempts=${attempts} />
        <${Panel} title="Facts"><dl class="pairs">${[
          ['Tenant', html`<a href=${`#/tenants/${encodeURIComponent(columns.tenant)}`}>${columns.tenant}</a>`], ['Key', html`<code>${columns.key_id}</code>`], ['Path', html`<code>${columns.path}</code>`], ['Model asked for', columns.model_alias],
          ['Cache', `${columns.cache}${columns.cache_detail ? ` (${columns.cache_detail})` : ''}`], ['Similarity', columns.similarity === null ? '–' : columns.similarity.toFixed(4)],
          ['P(small suffices)', columns.p_small_suffices === null ? '–' : percent(columns.p_small_suffices, 1)], ['Policy', html`<code>${columns.policy_version ?? '–'}</code>`],
          ['Gateway overhead', ms(columns.overhead_ms)], ['Within SLA', columns.sla_violated ? 'no' : 'yes'],
        ].map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl><//>
        <${Panel} title="Decision receipt" wide>${told.decision ? html`<${Decision} told=${told} />` : html`<${Empty}>No receipt is kept for this request: it ended before a plan was made, came from the cache, or its receipt has been trimmed.<//>`}<//>
      </div>`}<//>`;
}
