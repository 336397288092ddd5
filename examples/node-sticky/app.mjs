// A counter per user, in the memory of the one process that the user belongs to. No packages: node:http alone.
// Run: PORT=9001 FLY_MACHINE_ID=n-1 INSTANCES=n-1,n-2,n-3 node app.mjs

import { createHash } from "node:crypto";
import { createServer } from "node:http";

const me = process.env.FLY_MACHINE_ID; // set by the gateway, as on Fly
const instances = process.env.INSTANCES.split(",");
if (!instances.includes(me)) throw new Error(`${me} is not one of INSTANCES`);

// --- to copy into an app of your own ---------------------------------------------------

let replays = 0;

/** The one instance that a user belongs to, by rendezvous hashing: all instances reckon the same. */
function owner(user) {
  const weight = (instance) => createHash("sha256").update(`${instance} ${user}`).digest("hex");
  return instances.reduce((best, next) => (weight(next) > weight(best) ? next : best));
}

/** Sends another instance's user there, by an empty answer. True: the request is answered. */
function sentOn(user, request, response) {
  const to = owner(user);
  if (to === me) return false;
  if ("fly-replay-src" in request.headers) {
    // Another instance thinks that the user is ours. To replay again could go on in a circle.
    response.writeHead(409).end();
    return true;
  }
  replays += 1;
  response.statusCode = 307;
  response.setHeader("fly-replay", `instance=${to}`);
  if (request.headers["fly-replay-cache-status"] === "hit") {
    // What the gateway remembers is from before INSTANCES changed. It is replaced, not followed again.
    response.setHeader("fly-replay-cache", "invalidate");
  }
  response.end();
  return true;
}

// --- the app ---------------------------------------------------------------------------

const counts = new Map();

function json(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function answer(request, response) {
  if (request.url === "/replays") return json(response, 200, { instance: me, replays });
  const user = request.headers["x-user"];
  if (!user) return json(response, 400, { error: "who are you? send X-User" });
  if (sentOn(user, request, response)) return;
  const count = (counts.get(user) ?? 0) + 1;
  counts.set(user, count);
  const came = request.headers["fly-replay-cache-status"] ?? "direct";
  json(response, 200, { count, instance: me, came, pid: process.pid });
}

createServer(answer).listen(Number(process.env.PORT), "127.0.0.1");
