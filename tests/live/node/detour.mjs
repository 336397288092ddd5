// A fetch that goes to another base URL each request and rides out restarts: the network between a client and
// several gateways behind one name. It never repeats a request of which a byte was sent.

const REFUSED = new Set(['ECONNREFUSED']);
const AGAIN_MS = 50;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const refused = (error) =>
  REFUSED.has(error?.cause?.code) || (error?.cause?.errors ?? []).some((one) => REFUSED.has(one.code));

// With patience a connection refused is tried again for so long, and one that broke before an answer came is 502.
export function detour(urls, patienceMs) {
  const ports = urls.map((url) => new URL(url).port);
  let next = 0;
  return async (input, init) => {
    const giveUp = Date.now() + patienceMs;
    for (;;) {
      const url = new URL(input instanceof Request ? input.url : input);
      url.port = ports[next++ % ports.length];
      try {
        return await fetch(url, init);
      } catch (error) {
        if (!patienceMs || init?.signal?.aborted || Date.now() > giveUp) throw error;
        if (!refused(error)) return new Response(`connection lost: ${error}`, { status: 502 });
        await sleep(AGAIN_MS);
      }
    }
  };
}

// The JSON object on standard input.
export async function plan() {
  let text = '';
  for await (const chunk of process.stdin) text += chunk;
  return JSON.parse(text);
}

// Seeded, so that a run can be repeated (mulberry32 over a string hash).
export function seeded(text) {
  let state = [...text].reduce((hash, char) => (Math.imul(hash, 31) + char.charCodeAt(0)) | 0, 7);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function shuffled(list, random) {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}
