// Requests to the admin API. The session is a cookie; the header shows that this page, and no other site, is asking.
export class ApiError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export const onLoggedOut = { call: () => {} };

async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: { 'x-headgate-dashboard': '1', ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, 'The gateway does not answer. What you see may be out of date.');
  }
  if (answer.status === 401 && path !== '/admin/login') onLoggedOut.call();
  if (!answer.ok) {
    const problem = await answer.json().catch(() => null);
    throw new ApiError(answer.status, problem?.error?.message ?? `The gateway answered ${answer.status}.`);
  }
  return answer.status === 204 ? null : answer.json();
}

/** Query values that are null, undefined or empty are left out. */
export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return kept.length ? `?${new URLSearchParams(kept)}` : '';
}

export const get = (path, values = {}) => ask('GET', path + query(values));
export const post = (path, body) => ask('POST', path, body ?? {});
