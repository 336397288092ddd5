// EventSource as browsers have it (npm `eventsource`), with a cookie: reads numbered events over several reconnects.
// JSON in on stdin: {bases, client, cookie, burst, until}; JSON out: {events, errors, connections}.

import { EventSource } from 'eventsource';
import { plan as readPlan } from './detour.mjs';

const STEP_MS = 20_000;

const plan = await readPlan();
const result = { events: [], errors: [], connections: 0 };
const query = new URLSearchParams({ client: plan.client, burst: plan.burst, until: plan.until });
let next = 0;
const source = new EventSource(`${plan.bases[0]}/events?${query}`, {
  fetch: (input, init) => {
    const base = plan.bases[next++ % plan.bases.length];
    result.connections += 1;
    return fetch(`${base}/events?${query}`, { ...init, headers: { ...init.headers, cookie: plan.cookie } });
  },
});
await new Promise((resolve) => {
  const late = setTimeout(() => {
    result.errors.push(`not done after ${STEP_MS} ms`);
    resolve();
  }, STEP_MS);
  const done = () => {
    clearTimeout(late);
    resolve();
  };
  source.onmessage = ({ data }) => {
    result.events.push(JSON.parse(data));
    if (result.events.length >= plan.until) done();
  };
  source.onerror = ({ code, message }) => {
    if (code === undefined) return; // the stream ended: EventSource comes back by itself
    result.errors.push(`${code}: ${message}`);
    done();
  };
});
source.close();
console.log(JSON.stringify(result));
process.exit(0);
