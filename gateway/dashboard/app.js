// The dashboard: login, the bar with its pages, and which page the address names.
import { html, render, useState, useEffect, useRef, zone } from '/dashboard/lib/ui.js';
import { get, post, onLoggedOut } from '/dashboard/lib/api.js';
import { Overview } from '/dashboard/pages/overview.js';
import { Tenants, Tenant } from '/dashboard/pages/tenants.js';
import { Requests } from '/dashboard/pages/requests.js';
import { OneRequest } from '/dashboard/pages/request.js';
import { Engines } from '/dashboard/pages/engines.js';
import { Cache } from '/dashboard/pages/cache.js';
import { Policies } from '/dashboard/pages/policies.js';

const PAGES = [
  { path: 'overview', name: 'Overview', key: 'o', page: Overview },
  { path: 'tenants', name: 'Tenants', key: 't', page: Tenants },
  { path: 'requests', name: 'Requests', key: 'r', page: Requests },
  { path: 'engines', name: 'Engines', key: 'e', page: Engines },
  { path: 'cache', name: 'Cache', key: 'c', page: Cache },
  { path: 'policies', name: 'Policies', key: 'p', page: Policies },
];
const BELOW = { tenants: Tenant, requests: OneRequest };

/** `#/tenants/acme?range=1h` -> { path, item, values } */
function place() {
  const [path, search = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [page = 'overview', item] = path.split('/').filter(Boolean);
  return { path: page, item: item && decodeURIComponent(item), values: Object.fromEntries(new URLSearchParams(search)) };
}

function usePlace() {
  const [now, setNow] = useState(place());
  useEffect(() => {
    const moved = () => setNow(place());
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);
  return now;
}

export function go(path, values = {}) {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '');
  location.hash = `#/${path}${kept.length ? `?${new URLSearchParams(kept)}` : ''}`;
}

function Login({ onDone }) {
  const [problem, setProblem] = useState(null);
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const submit = async (event) => {
    event.preventDefault();
    try { onDone(await post('/admin/login', { key: field.current.value.trim() })); } catch (error) { setProblem(error.message); }
  };
  return html`<main class="login">
    <form onSubmit=${submit}>
      <h1><img src="/dashboard/icon.svg" alt="" width="28" height="28" /> Headgate</h1>
      <label for="key">Administrator's key</label>
      <input id="key" type="password" autocomplete="current-password" required ref=${field} aria-describedby="hint" />
      <p id="hint" class="note">The owner's key is in the file <code>admin.key</code> beside the state; <code>headgate keys create --role viewer</code> makes others.</p>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <button type="submit">Log in</button>
    </form></main>`;
}

const themes = { auto: 'light dark', light: 'light', dark: 'dark' };
function useTheme() {
  const [theme, setTheme] = useState(localStorage.getItem('headgate-theme') ?? 'auto');
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem('headgate-theme', theme);
    dispatchEvent(new Event('headgate-theme'));
  }, [theme]);
  return [theme, () => setTheme(Object.keys(themes)[(Object.keys(themes).indexOf(theme) + 1) % 3])];
}

function useKeys(setHelp) {
  const pending = useRef(0);
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
      if (event.key === '?') setHelp((shown) => !shown);
      if (event.key === 'Escape') setHelp(false);
      if (event.key === '/') { const box = document.querySelector('input[type=search]'); if (box) { event.preventDefault(); box.focus(); } }
      if (event.key === 'g') { pending.current = Date.now(); return; }
      const page = PAGES.find((one) => one.key === event.key);
      if (page && Date.now() - pending.current < 1500) { pending.current = 0; go(page.path); }
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, []);
}

const Help = ({ onClose }) => html`<div class="help" role="dialog" aria-modal="true" aria-label="Keyboard">
  <h2>Keyboard</h2>
  <dl>${PAGES.map((page) => html`<div><dt><kbd>g</kbd> <kbd>${page.key}</kbd></dt><dd>${page.name}</dd></div>`)}
    <div><dt><kbd>/</kbd></dt><dd>Search</dd></div>
    <div><dt><kbd>j</kbd> <kbd>k</kbd> <kbd>Enter</kbd></dt><dd>Next, previous, open (requests)</dd></div>
    <div><dt><kbd>?</kbd></dt><dd>This help</dd></div></dl>
  <button onClick=${onClose}>Close</button></div>`;

function App() {
  const [who, setWho] = useState(undefined);
  const [help, setHelp] = useState(false);
  const [theme, nextTheme] = useTheme();
  const here = usePlace();
  useKeys(setHelp);
  useEffect(() => {
    onLoggedOut.call = () => setWho(null);
    get('/admin/session').then((session) => setWho(session.administrator), () => setWho(null));
  }, []);
  const page = PAGES.find((one) => one.path === here.path) ?? PAGES[0];
  useEffect(() => { document.title = `${here.item ?? page.name} · Headgate`; }, [here.path, here.item]);
  if (who === undefined) return html`<p class="boot">Loading the dashboard …</p>`;
  if (who === null) return html`<${Login} onDone=${setWho} />`;
  const Shown = (here.item && BELOW[page.path]) || page.page;
  const logOut = async () => { await post('/admin/logout').catch(() => null); setWho(null); };
  return html`
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); document.getElementById('content').focus(); }}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/overview"><img src="/dashboard/icon.svg" alt="" width="22" height="22" /> Headgate</a>
      <nav aria-label="Pages">${PAGES.map((one) => html`<a href=${`#/${one.path}`} aria-current=${one === page ? 'page' : undefined}>${one.name}</a>`)}</nav>
      <span class="who"><span title=${`times are shown in ${zone}`}>${who.name} · ${who.role}</span>
        <button class="plain" onClick=${nextTheme} title="Light, dark, or as the system">${theme} theme</button>
        <button class="plain" onClick=${() => setHelp(true)} aria-label="Keyboard help">?</button>
        <button class="plain" onClick=${logOut}>Log out</button></span>
    </header>
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
    <main id="content" tabindex="-1"><${Shown} key=${`${page.path}/${here.item ?? ''}`} item=${here.item} values=${here.values} who=${who} go=${go} /></main>
    <footer>Times in ${zone}. Money is settled cost from the ledger and the request log, exact in each figure's title.</footer>`;
}

document.getElementById('app').textContent = '';
render(html`<${App} />`, document.getElementById('app'));
