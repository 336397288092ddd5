// The two generations of the official TypeScript SDK behind the few words that ts_fleet.mjs needs.

const V1 = '@modelcontextprotocol/sdk';

export async function sdk(generation) {
  if (generation === 2) {
    const { Client, SSEClientTransport, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
    return {
      Client,
      SSEClientTransport,
      StreamableHTTPClientTransport,
      callTool: (client, params, options) => client.callTool(params, options),
      handle(client, { sample, elicit, updated }) {
        client.setRequestHandler('sampling/createMessage', sample);
        client.setRequestHandler('elicitation/create', elicit);
        client.setNotificationHandler('notifications/resources/updated', updated);
      },
    };
  }
  const { Client } = await import(`${V1}/client/index.js`);
  const { SSEClientTransport } = await import(`${V1}/client/sse.js`);
  const { StreamableHTTPClientTransport } = await import(`${V1}/client/streamableHttp.js`);
  const types = await import(`${V1}/types.js`);
  return {
    Client,
    SSEClientTransport,
    StreamableHTTPClientTransport,
    callTool: (client, params, options) => client.callTool(params, undefined, options),
    handle(client, { sample, elicit, updated }) {
      client.setRequestHandler(types.CreateMessageRequestSchema, sample);
      client.setRequestHandler(types.ElicitRequestSchema, elicit);
      client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, updated);
    },
  };
}
