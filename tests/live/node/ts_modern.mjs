// 2026-07-28 with the TypeScript client 2.x: multi-round-trip calls, and a subscription that hears its own changes.
// JSON in on stdin: {urls, principals, calls, rounds, changes}; JSON out: {versions, succeeded, heard, errors}.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { detour, plan as readPlan } from './detour.mjs';

const STEP_MS = 20_000;

async function run(plan, number, tally) {
  const principal = `ts-${number}`;
  const client = new Client(
    { name: principal, version: '1' },
    { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: 'auto' } },
  );
  client.setRequestHandler('elicitation/create', async () => ({ action: 'accept', content: { word: 'yes' } }));
  const heard = [];
  const waiting = [];
  client.setNotificationHandler('notifications/resources/updated', ({ params }) => {
    heard.push(params.uri);
    waiting.shift()?.();
  });
  const call = async (name, args) => {
    const result = await client.callTool({ name, arguments: args }, { timeout: STEP_MS });
    const text = result.content.find((block) => block.type === 'text')?.text ?? '';
    if (result.isError) throw new Error(text);
    return JSON.parse(text);
  };
  try {
    await client.connect(
      new StreamableHTTPClientTransport(new URL(plan.urls[0]), {
        fetch: detour(plan.urls, 0),
        requestInit: { headers: { authorization: `Bearer ${principal}` } },
      }),
    );
    tally.versions.push(client.getNegotiatedProtocolVersion());
    for (let i = 0; i < plan.calls; i++) {
      const nonce = `${principal}-${i}`;
      const answer = await call('approve', { nonce, rounds: plan.rounds });
      if (answer.nonce === nonce && answer.rounds === plan.rounds) tally.succeeded += 1;
      else tally.errors.push(`${nonce}: ${JSON.stringify(answer)}`);
    }
    const uri = `rig://${principal}`;
    const subscription = await client.listen({ resourceSubscriptions: [uri] });
    for (let i = 0; i < plan.changes; i++) {
      const come = new Promise((resolve) => waiting.push(() => resolve(true)));
      const late = new Promise((resolve) => setTimeout(resolve, STEP_MS, false).unref());
      await call('touch', { nonce: `${principal}-touch-${i}`, uri });
      if ((await Promise.race([come, late])) && heard.at(-1) === uri) tally.heard += 1;
      else tally.errors.push(`${principal} heard ${heard} of ${uri}`);
    }
    await subscription.close();
  } catch (error) {
    tally.errors.push(`${principal}: ${error?.stack ?? error}`);
  } finally {
    await client.close();
  }
}

const plan = await readPlan();
const tally = { versions: [], succeeded: 0, heard: 0, errors: [] };
await Promise.all(Array.from({ length: plan.principals }, (_, number) => run(plan, number, tally)));
console.log(JSON.stringify(tally));
process.exit(0);
