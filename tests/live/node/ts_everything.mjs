// Sessions of the TypeScript SDK (either generation) with server-everything, checking its per-session state.
// JSON in on stdin: {urls, transport, sessions, calls, generation, name}; JSON out: {calls, errors}.

import { detour, plan as readPlan } from './detour.mjs';
import { sdk } from './sdk.mjs';

const STEP_MS = 20_000;

async function run(plan, number, sdk, tally) {
  const mine = `${plan.name}-${number}`;
  const client = new sdk.Client(
    { name: mine, version: '1' },
    { capabilities: { sampling: {}, elicitation: { form: {} } } },
  );
  sdk.handle(client, {
    sample: async () => ({ role: 'assistant', model: 'rig', content: { type: 'text', text: `model of ${mine}` } }),
    elicit: async () => ({ action: 'accept', content: { name: mine, check: true } }),
    updated: () => {},
  });
  const call = async (name, args, expected) => {
    const { content } = await sdk.callTool(client, { name, arguments: args }, { timeout: STEP_MS });
    const text = content.map((block) => block.text).join('\n');
    tally.calls += 1;
    if (!text.includes(expected)) tally.errors.push(`${mine}: ${name} said ${text}, not ${expected}`);
  };
  const url = new URL(plan.urls[0]);
  const options = { fetch: detour(plan.urls, 0) };
  const { SSEClientTransport, StreamableHTTPClientTransport } = sdk;
  const transport =
    plan.transport === 'sse' ? new SSEClientTransport(url, options) : new StreamableHTTPClientTransport(url, options);
  try {
    await client.connect(transport, { timeout: STEP_MS });
    await call('toggle-simulated-logging', {}, 'Started');
    for (let i = 0; i < plan.calls - 4; i++) await call('echo', { message: `${mine}-${i}` }, `${mine}-${i}`);
    await call('trigger-sampling-request', { prompt: 'p' }, `model of ${mine}`);
    await call('trigger-elicitation-request', {}, mine);
    await call('toggle-simulated-logging', {}, 'Stopped');
    if (plan.transport !== 'sse') await transport.terminateSession();
  } catch (error) {
    tally.errors.push(`${mine}: ${error?.stack ?? error}`);
  } finally {
    await client.close();
  }
}

const plan = await readPlan();
const generation = await sdk(plan.generation);
const tally = { calls: 0, errors: [] };
await Promise.all(Array.from({ length: plan.sessions }, (_, number) => run(plan, number, generation, tally)));
console.log(JSON.stringify(tally));
process.exit(0);
