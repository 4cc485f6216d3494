// What the npm package `openai` makes of a server's answers, as JSON: node openai_client.cjs URL
const OpenAI = require("openai").default;

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const asked = { model: "any", messages: [{ role: "user", content: "What is the capital of France? Answer in one sentence." }], temperature: 0 };
const schema = { type: "object", properties: { city: { type: "string", maxLength: 20 } }, required: ["city"], additionalProperties: false };
const tools = [{ type: "function", function: { name: "weather", parameters: schema } }];

async function texts(stream, text) {
  let all = "";
  for await (const one of stream) all += text(one) ?? "";
  return all;
}

async function main() {
  const told = {};
  told.models = (await client.models.list()).data.map((model) => model.id);
  const chat = await client.chat.completions.create(asked);
  told.chat = chat.choices[0].message.content;
  const options = { ...asked, stream: true, stream_options: { include_usage: true } };
  let usage;
  told.streamed = await texts(await client.chat.completions.create(options), (chunk) => {
    usage = chunk.usage ?? usage;
    return chunk.choices[0]?.delta.content;
  });
  told.usages = [chat.usage, usage];
  const calling = client.chat.completions.stream({ ...asked, tools, tool_choice: "required", parallel_tool_calls: false });
  const called = (await calling.finalChatCompletion()).choices[0];
  told.call = [called.finish_reason, called.message.tool_calls[0].function];
  const form = { type: "json_schema", json_schema: { name: "city", strict: true, schema } };
  told.parsed = (await client.chat.completions.parse({ ...asked, response_format: form })).choices[0].message.parsed;
  told.completion = (await client.completions.create({ model: "any", prompt: "1, 2, 3,", max_tokens: 6, temperature: 0 })).choices[0].text;
  const response = { model: "any", input: asked.messages[0].content, temperature: 0 };
  told.response = (await client.responses.create(response)).output_text;
  told.responseStreamed = (await client.responses.stream(response).finalResponse()).output_text;
  told.error = await client.chat.completions.create({ ...asked, top_p: 7, temperature: 1 }).catch((error) => [error.constructor.name, error.status, error.param]);
  for await (const _ of await client.chat.completions.create({ ...asked, stream: true, max_tokens: 900 })) break; // hangs up
  console.log(JSON.stringify(told));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
