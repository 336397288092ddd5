// One call that its server never answers, with the TypeScript SDK (either generation), and one more after it failed.
// JSON in on stdin: {urls, transport, generation, modern, nonce}; JSON out: {ms, error, then_ms, then}.

import { detour, plan as readPlan } from './detour.mjs';
import { sdk } from './sdk.mjs';

const STEP_MS = 60_000; // the SDK's default: what a client that is told nothing waits

const plan = await readPlan();
const { Client, SSEClientTransport, StreamableHTTPClientTransport, callTool } = await sdk(plan.generation);
const negotiation = plan.modern ? { versionNegotiation: { mode: 'auto' } } : {};
const client = new Client({ name: plan.nonce, version: '1' }, { capabilities: {}, ...negotiation });
const Transport = plan.transport === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
await client.connect(new Transport(new URL(plan.urls[0]), { fetch: detour(plan.urls, 0) }));

async function failing(name, nonce) {
  const begun = Date.now();
  try {
    const result = await callTool(client, { name, arguments: { nonce } }, { timeout: STEP_MS, onprogress: () => {} });
    return [Date.now() - begun, `answered ${JSON.stringify(result)}`];
  } catch (error) {
    return [Date.now() - begun, `${error}`];
  }
}

const [ms, error] = await failing('hang', plan.nonce);
const [then_ms, then] = await failing('whoami', `${plan.nonce}-then`);
console.log(JSON.stringify({ ms, error, then_ms, then }));
process.exit(0);
