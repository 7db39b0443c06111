// The Node clients against a running gateway; prints one JSON object: check -> "ok" or what went wrong.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const { GATEWAY, UPSTREAM, KEY } = process.env;
const base = `${GATEWAY}/v1`;
const openai = new OpenAI({ baseURL: base, apiKey: KEY, maxRetries: 0 });
const claude = new Anthropic({ baseURL: GATEWAY, apiKey: KEY, maxRetries: 0 });
const responses = createOpenAI({ baseURL: base, apiKey: KEY });
const compatible = createOpenAICompatible({ name: "headgate", baseURL: base, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true });
const model = "large";
const messages = (content) => [{ role: "user", content }];
const parameters = { type: "object", properties: { q: { type: "string" } } };
const look_up = tool({ description: "d", inputSchema: z.object({ q: z.string() }) });

const obey = (script) => fetch(`${UPSTREAM}/script`, { method: "POST", body: script });
const released = async () => (await (await fetch(`${UPSTREAM}/seen?settle_s=5`)).json()).at(-1).state;
const joined = async (parts, text = (part) => part) => {
  let all = "";
  for await (const part of parts) all += text(part) ?? "";
  return all;
};
const begun = async (parts) => {
  for await (const _ of parts) break;
};

// Each client says how it gets a text, a stream's text, a tool's name, and how it leaves a stream.
const chat = {
  asked: (prompt, more = {}) => openai.chat.completions.create({ model, messages: messages(prompt), ...more }),
  text: async (prompt, name = model) => (await chat.asked(prompt, { model: name })).choices[0].message.content,
  stream: async (prompt) => joined(await chat.asked(prompt, { stream: true }), (chunk) => chunk.choices[0]?.delta.content),
  tool: async (prompt) => {
    const tools = [{ type: "function", function: { name: "look_up", parameters } }];
    return (await chat.asked(prompt, { tools, tool_choice: "required" })).choices[0].message.tool_calls[0].function.name;
  },
  leave: async (prompt) => begun(await chat.asked(prompt, { stream: true })),
};
const response = {
  text: async (input, name = model) => (await openai.responses.create({ model: name, input })).output_text,
  stream: async (input) => (await openai.responses.stream({ model, input }).finalResponse()).output_text,
  tool: async (input) => {
    const tools = [{ type: "function", name: "look_up", parameters, strict: false }];
    return (await openai.responses.create({ model, input, tools, tool_choice: "required" })).output[0].name;
  },
  leave: async (input) => begun(await openai.responses.create({ model, input, stream: true })),
};
const message = {
  asked: (prompt, more = {}) => ({ model, max_tokens: 500, messages: messages(prompt), ...more }),
  text: async (prompt, name = model) => (await claude.messages.create(message.asked(prompt, { model: name }))).content[0].text,
  stream: async (prompt) => claude.messages.stream(message.asked(prompt)).finalText(),
  tool: async (prompt) => {
    const tools = [{ name: "look_up", input_schema: parameters }];
    const use = (await claude.messages.stream(message.asked(prompt, { tools, tool_choice: { type: "any" } })).finalMessage()).content[0];
    assert.deepEqual([use.type, use.input], ["tool_use", { q: "sample" }]);
    return use.name;
  },
  leave: async (prompt) => begun(claude.messages.stream(message.asked(prompt))),
};
const vercel = (provider) => ({
  text: async (prompt, name = model) => {
    const answer = await generateText({ model: provider(name), prompt, maxRetries: 0 });
    assert.ok(answer.usage.outputTokens > 0);
    return answer.text;
  },
  stream: async (prompt) => {
    let failure;
    const answer = streamText({ model: provider(model), prompt, maxRetries: 0, onError: ({ error }) => (failure = error) });
    const text = await joined(answer.textStream);
    if (failure) throw failure;
    assert.ok((await answer.usage).outputTokens > 0);
    return text;
  },
  tool: async (prompt) => {
    const asked = { model: provider(model), prompt, tools: { look_up }, toolChoice: "required", maxRetries: 0 };
    const streamed = (await streamText(asked).toolCalls)[0].toolName;
    assert.equal((await generateText(asked)).toolCalls[0].toolName, streamed);
    return streamed;
  },
  leave: async (prompt) => {
    const leaving = new AbortController();
    const answer = streamText({ model: provider(model), prompt, abortSignal: leaving.signal, maxRetries: 0, onError: () => {} });
    await begun(answer.textStream);
    leaving.abort();
  },
});
const clients = {
  "openai (Node), chat": chat,
  "openai (Node), responses": response,
  "anthropic (Node)": message,
  "Vercel AI SDK, chat": vercel(compatible),
  "Vercel AI SDK, responses": vercel(responses),
};

const checks = {};
for (const [name, client] of Object.entries(clients)) {
  checks[`${name}: text`] = async () => assert.equal(await client.text(`${name} text`), `answer to: ${name} text`);
  checks[`${name}: stream`] = async () => assert.equal(await client.stream(`${name} stream`), `answer to: ${name} stream`);
  checks[`${name}: tools`] = async () => assert.equal(await client.tool("go"), "look_up");
  checks[`${name}: errors`] = () => assert.rejects(client.text("x", "nope"), (error) => (error.status ?? error.statusCode) === 404);
  checks[`${name}: broken stream`] = async () => {
    await obey("n=8;cut=3");
    await assert.rejects(client.stream(`${name} broken`), (error) => JSON.stringify([error, error?.message]).includes("cut"));
  };
  checks[`${name}: cancel`] = async () => {
    await obey("n=200;gap=50");
    await client.leave(`${name} leaves`);
    assert.equal(await released(), "disconnected");
  };
}
checks["openai (Node), embeddings of a chat model"] = () =>
  assert.rejects(openai.embeddings.create({ model, input: "x" }), (error) => error.status === 400 && error.param === "model");
for (const [name, provider] of [["chat", compatible], ["responses", responses]]) {
  checks[`Vercel AI SDK, ${name}, object`] = async () => {
    const schema = z.object({ city: z.string(), people: z.number() });
    const answer = await generateObject({ model: provider(model), prompt: "a city", schema, maxRetries: 0 });
    assert.equal(answer.object.city, "sample");
  };
}

const results = {};
for (const [name, check] of Object.entries(checks)) {
  await obey("");
  results[name] = await check().then(() => "ok", (error) => String(error?.message ?? error).slice(0, 300));
}
console.log(JSON.stringify(results));
process.exit(0);
