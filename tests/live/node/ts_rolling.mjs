// Sessions of the official TypeScript client that call a tool again and again until a file appears, and then have a
// notification sent to them. JSON in on stdin: {urls, generation, sessions, name, until}; JSON out: {sessions}.

import { existsSync } from 'node:fs';

import { detour, plan as readPlan, sleep } from './detour.mjs';
import { sdk } from './sdk.mjs';

const STEP_MS = 20_000;
const PAUSE_MS = 20;

const plan = await readPlan();
const { Client, StreamableHTTPClientTransport, callTool, handle } = await sdk(plan.generation);

async function run(index) {
  const name = `${plan.name}-${index}`;
  const session = { index, calls: 0, lives: [], noticed: false, errors: [] };
  const client = new Client({ name, version: '1' }, { capabilities: { sampling: {}, elicitation: { form: {} } } });
  let noticed;
  const notice = new Promise((resolve) => {
    noticed = resolve;
  });
  handle(client, { sample: async () => ({}), elicit: async () => ({}), updated: () => noticed(true) });
  const transport = new StreamableHTTPClientTransport(new URL(plan.urls[0]), { fetch: detour(plan.urls, 0) });
  const call = async (tool, args) => {
    const nonce = `${name}-${session.calls++}`;
    try {
      const options = { timeout: STEP_MS };
      const result = await callTool(client, { name: tool, arguments: { nonce, ...args } }, options);
      const text = result.content[0]?.text ?? '';
      if (result.isError) session.errors.push(`${tool} ${nonce}: ${text}`);
      else if (tool === 'whoami') session.lives.push(JSON.parse(text).session);
    } catch (error) {
      session.errors.push(`${tool} ${nonce}: ${error}`);
    }
  };
  try {
    await client.connect(transport, { timeout: STEP_MS });
    while (!existsSync(plan.until)) {
      await call('whoami', {});
      await sleep(PAUSE_MS);
    }
    await call('announce', { uri: `rig://${name}/last` });
    session.noticed = (await Promise.race([notice, sleep(5000)])) === true;
    await transport.terminateSession();
  } catch (error) {
    session.errors.push(`ended by ${error?.stack ?? error}`);
  } finally {
    await client.close();
  }
  session.lives = [...new Set(session.lives)];
  return session;
}

const sessions = await Promise.all(Array.from({ length: plan.sessions }, (_, index) => run(index)));
console.log(JSON.stringify({ sessions }));
process.exit(0);
