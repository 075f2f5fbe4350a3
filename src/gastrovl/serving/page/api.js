// What the page asks of the server that sent it, to its answers; whatever goes wrong becomes a Refusal with words.

let key = "";
const PATHS = { classify: "v1/classify", locate: "v1/locate", name: "v1/name-region", describe: "v1/describe" };

export class Refusal extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function useKey(text) {
  key = text.trim();
}

export const models = async () => (await json("v1/models")).data.map((model) => model.id);
export const terms = () => json("v1/terms");
export const examine = (base64) => json("v1/image", { image: base64 });
export const typed = (kind, body, signal) => json(PATHS[kind], body, signal);

// The reply in words: each piece goes to `onPiece`; then { text, about, stopReason }.
export async function chat(model, messages, onPiece, signal) {
  const response = await send("v1/chat/completions", { model, messages, stream: true, task: "VQA" }, signal);
  const found = { text: "", about: null, stopReason: "end" };
  let isWhole = false;
  for await (const data of events(response)) {
    if (data === "[DONE]") {
      isWhole = true;
      break;
    }
    const event = JSON.parse(data);
    if (event.error) throw new Refusal(event.error.message, response.status, event.error.code);
    const [choice] = event.choices;
    if (choice?.delta?.content) {
      found.text += choice.delta.content;
      onPiece(found.text);
    }
    if (choice?.finish_reason) found.stopReason = choice.finish_reason === "length" ? "length" : "end";
    if (event.gastrovl) found.about = event.gastrovl;
  }
  if (!isWhole) throw new Refusal("the answer broke off; ask again");
  return found;
}

async function json(path, body, signal) {
  return (await send(path, body, signal)).json();
}

async function send(path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, credentials: "omit", redirect: "error" };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("the server does not answer; is `gastrovl serve` still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  const words = said?.error?.message ?? `the server refused (${response.status})`;
  const wait = response.headers.get("retry-after");
  throw new Refusal(wait ? `${words} (again in ${wait} s)` : words, response.status, said?.error?.code);
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) yield part.slice(6);
    }
  }
}
