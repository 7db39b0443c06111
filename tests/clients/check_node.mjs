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

const checks = {
  "openai chat": async () => {
    const answer = await openai.chat.completions.create({ model, messages: messages("node chat") });
    assert.equal(answer.choices[0].message.content, "answer to: node chat");
  },
  "openai stream": async () => {
    const stream = await openai.chat.completions.create({ model, messages: messages("node stream"), stream: true });
    assert.equal(await joined(stream, (chunk) => chunk.choices[0]?.delta.content), "answer to: node stream");
  },
  "openai tools": async () => {
    const tools = [{ type: "function", function: { name: "look_up", parameters } }];
    const answer = await openai.chat.completions.create({ model, messages: messages("go"), tools, tool_choice: "required" });
    assert.equal(answer.choices[0].message.tool_calls[0].function.name, "look_up");
  },
  "openai responses stream": async () => {
    const stream = openai.responses.stream({ model, input: "node responses" });
    assert.equal((await stream.finalResponse()).output_text, "answer to: node responses");
  },
  "openai embeddings": async () => {
    const refused = openai.embeddings.create({ model, input: "x" });
    await assert.rejects(refused, (error) => error.status === 400 && error.param === "model");
  },
  "openai error": async () => {
    const refused = openai.chat.completions.create({ model: "nope", messages: messages("x") });
    await assert.rejects(refused, (error) => error.status === 404 && error.code === "model_not_found");
  },
  "openai broken stream": async () => {
    await obey("n=8;cut=3");
    const stream = await openai.chat.completions.create({ model, messages: messages("cut"), stream: true });
    await assert.rejects(joined(stream), (error) => error.code === "upstream_error");
  },
  "openai cancel": async () => {
    await obey("n=200;gap=50");
    const stream = await openai.chat.completions.create({ model, messages: messages("leave"), stream: true });
    for await (const _ of stream) break;
    assert.equal(await released(), "disconnected");
  },
  "anthropic message": async () => {
    const answer = await claude.messages.create({ model, max_tokens: 50, messages: messages("node claude") });
    assert.equal(answer.content[0].text, "answer to: node claude");
  },
  "anthropic stream": async () => {
    const stream = claude.messages.stream({ model, max_tokens: 50, messages: messages("node claude stream") });
    assert.equal(await stream.finalText(), "answer to: node claude stream");
  },
  "anthropic tools": async () => {
    const tools = [{ name: "look_up", input_schema: parameters }];
    const stream = claude.messages.stream({ model, max_tokens: 50, messages: messages("go"), tools, tool_choice: { type: "any" } });
    const use = (await stream.finalMessage()).content[0];
    assert.deepEqual([use.type, use.name, use.input], ["tool_use", "look_up", { q: "sample" }]);
  },
  "anthropic error": async () => {
    const refused = claude.messages.create({ model: "nope", max_tokens: 5, messages: messages("x") });
    await assert.rejects(refused, (error) => error.status === 404 && error.error.error.type === "not_found_error");
  },
  "anthropic broken stream": async () => {
    await obey("n=8;cut=3");
    const stream = claude.messages.stream({ model, max_tokens: 50, messages: messages("cut claude") });
    await assert.rejects(stream.finalText(), /cut/);
  },
};
for (const [name, provider] of [["ai-sdk chat", compatible(model)], ["ai-sdk responses", responses(model)]]) {
  checks[`${name} text`] = async () => {
    const answer = await generateText({ model: provider, prompt: `${name} text`, maxRetries: 0 });
    assert.equal(answer.text, `answer to: ${name} text`);
    assert.ok(answer.usage.outputTokens > 0);
  };
  checks[`${name} stream`] = async () => {
    const answer = streamText({ model: provider, prompt: `${name} stream`, maxRetries: 0 });
    assert.equal(await joined(answer.textStream), `answer to: ${name} stream`);
    assert.ok((await answer.usage).outputTokens > 0);
  };
  checks[`${name} tools`] = async () => {
    const asked = { model: provider, prompt: "go", tools: { look_up }, toolChoice: "required", maxRetries: 0 };
    assert.equal((await generateText(asked)).toolCalls[0].toolName, "look_up");
    assert.equal((await streamText(asked).toolCalls)[0].toolName, "look_up");
  };
  checks[`${name} object`] = async () => {
    const schema = z.object({ city: z.string(), people: z.number() });
    const answer = await generateObject({ model: provider, prompt: "a city", schema, maxRetries: 0 });
    assert.equal(answer.object.city, "sample");
  };
  checks[`${name} broken stream`] = async () => {
    await obey("n=8;cut=3");
    let seen;
    const answer = streamText({ model: provider, prompt: `cut ${name}`, maxRetries: 0, onError: ({ error }) => (seen = error) });
    await joined(answer.textStream).catch((error) => (seen = error));
    assert.ok(seen, "nothing told of the cut");
  };
  checks[`${name} cancel`] = async () => {
    await obey("n=200;gap=50");
    const leaving = new AbortController();
    const answer = streamText({ model: provider, prompt: `leave ${name}`, abortSignal: leaving.signal, maxRetries: 0, onError: () => {} });
    for await (const _ of answer.textStream) {
      leaving.abort();
      break;
    }
    assert.equal(await released(), "disconnected");
  };
}

const results = {};
for (const [name, check] of Object.entries(checks)) {
  await obey("");
  results[name] = await check().then(() => "ok", (error) => String(error?.message ?? error).slice(0, 300));
}
console.log(JSON.stringify(results));
process.exit(0);
