// A fleet of the official TypeScript client: the same plan as py_fleet.py, JSON in on stdin, JSON out.
// `generation` 1 is @modelcontextprotocol/sdk, 2 is @modelcontextprotocol/client in its default (2025) mode.

import { detour, plan as readPlan, seeded, shuffled, sleep } from './detour.mjs';
import { sdk } from './sdk.mjs';

const STEP_MS = 30_000;
const NOTICE_MS = 10_000;
const AGAIN_MS = 100;

class Caller {
  constructor(plan, index, sdk) {
    this.plan = plan;
    this.sdk = sdk;
    this.patienceMs = (plan.patience_s ?? 0) * 1000;
    this.random = seeded(`${plan.seed}/${plan.name}/${index}`);
    this.mine = `${plan.name}-${index}`;
    this.session = { index, calls: 0, asks: 0, notices: 0, lost: 0, errors: [] };
    this.notices = new Set();
    this.waiting = new Map();
    this.acknowledged = [];
    this.sent = 0;
    this.count = 0;
  }

  transport() {
    const url = new URL(this.plan.urls[0]);
    const options = { fetch: detour(this.plan.urls, this.patienceMs) };
    const { SSEClientTransport, StreamableHTTPClientTransport } = this.sdk;
    return this.plan.transport === 'sse'
      ? new SSEClientTransport(url, options)
      : new StreamableHTTPClientTransport(url, options);
  }

  async run() {
    const client = new this.sdk.Client(
      { name: this.mine, version: '1' },
      { capabilities: { sampling: {}, elicitation: { form: {} } } },
    );
    this.sdk.handle(client, {
      sample: async ({ params }) => {
        this.session.asks += 1;
        const text = `model says ${params.messages[0].content.text}`;
        return { role: 'assistant', model: 'rig', content: { type: 'text', text } };
      },
      elicit: async ({ params }) => {
        this.session.asks += 1;
        return { action: 'accept', content: { word: `user says ${params.message}` } };
      },
      updated: ({ params }) => this.noticed(params.uri),
    });
    const transport = this.transport();
    try {
      await client.connect(transport, { timeout: STEP_MS });
      await this.work(client);
      if (this.plan.transport !== 'sse') await transport.terminateSession();
    } catch (error) {
      this.session.errors.push(`ended by ${error?.stack ?? error}`);
    } finally {
      await client.close();
    }
    return this.session;
  }

  async work(client) {
    await this.call(client, 'put', { key: 'mine', value: this.mine });
    const incr = async () => {
      const count = (await this.call(client, 'incr')).count;
      const [low, high] = [this.count + 1, this.count + 1 + this.session.lost];
      this.check(low <= count && count <= high, `counted ${count}, expected ${low}..${high}`);
      this.count = count;
    };
    const sampled = async () => {
      const prompt = `p${Math.floor(this.random() * 1e9)}`;
      const { text } = await this.call(client, 'ask_model', { prompt });
      this.check(text === `model says ${prompt}`, `sampled ${text} for ${prompt}`);
    };
    const elicited = async () => {
      const question = `q${Math.floor(this.random() * 1e9)}`;
      const { text } = await this.call(client, 'ask_user', { question });
      this.check(text === `user says ${question}`, `elicited ${text} for ${question}`);
    };
    const announced = () => this.announced(client);
    const asks = this.plan.asks ? [sampled, elicited, announced, announced] : [];
    const steps = [...Array(this.plan.calls - 3 - asks.length).fill(incr), ...asks];
    for (const step of shuffled(steps, this.random)) await step();
    const kept = (await this.call(client, 'get', { key: 'mine' })).value;
    this.check(kept === this.mine, `kept ${kept}, not ${this.mine}`);
    const history = (await this.call(client, 'history')).nonces ?? [];
    const known = new Set(this.acknowledged);
    const seen = history.filter((nonce) => known.has(nonce));
    this.check(
      JSON.stringify(seen) === JSON.stringify(this.acknowledged),
      `the instance saw ${history}, acknowledged ${this.acknowledged}`,
    );
    const foreign = history.filter((nonce) => !nonce.startsWith(`${this.mine}-`));
    this.check(foreign.length === 0, `foreign nonces ${foreign}`);
  }

  async announced(client) {
    const giveUp = Date.now() + NOTICE_MS + this.patienceMs;
    for (;;) {
      const uri = `rig://${this.mine}/${this.sent}`;
      await this.call(client, 'announce', { uri });
      if (await this.sees(uri, this.patienceMs ? 2000 : NOTICE_MS)) return;
      if (!this.patienceMs || Date.now() > giveUp) {
        this.session.errors.push(`no notification of ${uri}`);
        return;
      }
      this.session.lost += 1;
    }
  }

  async sees(uri, withinMs) {
    if (this.notices.has(uri)) return true;
    const timer = {};
    const late = new Promise((resolve) => {
      timer.id = setTimeout(resolve, withinMs, false);
    });
    const come = new Promise((resolve) => this.waiting.set(uri, () => resolve(true)));
    const result = await Promise.race([come, late]);
    clearTimeout(timer.id);
    this.waiting.delete(uri);
    return result;
  }

  noticed(uri) {
    if (this.notices.has(uri)) this.session.errors.push(`notified twice of ${uri}`);
    if (!uri.startsWith(`rig://${this.mine}/`)) this.session.errors.push(`notified of another session's ${uri}`);
    this.notices.add(uri);
    this.session.notices += 1;
    this.waiting.get(uri)?.();
  }

  // What a broken connection, a 5xx and a request that was never answered look like to this SDK.
  lost(error) {
    const status = error?.code;
    return status === 502 || status === 503 || status === 504 || status === -32000 || status === -32001 ||
      error instanceof TypeError;
  }

  async call(client, name, args = {}) {
    const giveUp = Date.now() + this.patienceMs;
    for (;;) {
      const nonce = `${this.mine}-${this.sent++}`;
      const timeout = this.patienceMs ? 5000 : STEP_MS;
      let result;
      try {
        result = await this.sdk.callTool(client, { name, arguments: { nonce, ...args } }, { timeout });
      } catch (error) {
        if (this.lost(error) && Date.now() < giveUp) {
          this.session.lost += 1;
          await sleep(AGAIN_MS);
          continue;
        }
        this.session.errors.push(`${name}: ${error}`);
        return {};
      }
      this.session.calls += 1;
      this.acknowledged.push(nonce);
      const text = result.content.find((block) => block.type === 'text')?.text ?? '';
      if (!result.isError) return JSON.parse(text);
      this.session.errors.push(`${name}: ${text}`);
      return {};
    }
  }

  check(holds, complaint) {
    if (!holds) this.session.errors.push(complaint);
  }
}

const plan = await readPlan();
const generation = await sdk(plan.generation);
const sessions = await Promise.all(
  Array.from({ length: plan.sessions }, (_, index) => new Caller(plan, index, generation).run()),
);
console.log(JSON.stringify({ sessions }));
process.exit(0);
