// Subjects and envelopes, built and read as contracts/README.md has them.

export const ENVELOPE_BYTES_MAX = 262_144;
const SETTLEMENT_ROOM_BYTES = 512; // an answer to a command stays this much smaller, so that a settlement can carry it
const REASON_CHARACTERS_MAX = 1_000;

const REQUIRED = ["id", "source", "type", "time"];
const OPTIONAL = { definition: "string", retry: "string", retriable: "boolean", traceparent: "string" };
const TYPE = /^(?<name>[A-Za-z0-9_.-]+)\.v(?<version>[1-9][0-9]*)$/;

/** A message that no attempt could make usable. `type` is there if an answer can still be named after it. */
export class Unusable extends Error {
  constructor(kind, reason, type) {
    super(reason);
    this.kind = kind;
    this.type = type;
  }
}

/** `saga.<k>.<type>.<id>.c.cmd.<participant>.<step>.<do|undo>.<attempt>`, taken apart. */
export function parseSubject(subject) {
  const [, partition, type, id, , , participant, step, direction, attempt] = subject.split(".");
  const path = `${partition}.${type}.${id}`;
  return { path, saga: `${type}/${id}`, type, id, participant, step, direction, attempt: Number(attempt) };
}

/** The envelope of a command, checked; throws Unusable. */
export function readEnvelope(subject, bytes) {
  const envelope = parseObject(bytes);
  const type = typeof envelope.type === "string" && TYPE.test(envelope.type) ? envelope.type : undefined;
  const wrong = (reason) => new Unusable("undecodable", reason, type);
  if (bytes.length > ENVELOPE_BYTES_MAX) throw wrong(`${bytes.length} bytes are more than ${ENVELOPE_BYTES_MAX}`);
  if (envelope.specversion !== "1.0") throw wrong("specversion is not 1.0");
  for (const name of REQUIRED) if (typeof envelope[name] !== "string") throw wrong(`${name} is missing or no text`);
  for (const [name, kind] of Object.entries(OPTIONAL))
    if (envelope[name] !== undefined && typeof envelope[name] !== kind) throw wrong(`${name} is no ${kind}`);
  if (!isObject(envelope.data)) throw wrong("data is missing or no object");
  if (envelope.id !== subject) throw new Unusable("forged", "the id is not the subject it is stored at");
  if (type === undefined) throw wrong("type has no version");
  return envelope;
}

function parseObject(bytes) {
  let parsed;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Unusable("undecodable", "no JSON in UTF-8");
  }
  if (!isObject(parsed)) throw new Unusable("undecodable", "no JSON object");
  return parsed;
}

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** `payment.charge.v1` and `refused` give `payment.charge.refused.v1`. */
export function derived(type, word) {
  const { name, version } = TYPE.exec(type).groups;
  return `${name}.${word}.v${version}`;
}

export const reasoned = (reason) => ({ reason: String(reason).slice(0, REASON_CHARACTERS_MAX) });

/** An answer to the command of a subject: where it is stored, and its bytes. Throws if it is too large. */
export function encodeAnswer(address, sequence, answer, carried) {
  const token = TYPE.exec(answer.type).groups.name.replaceAll(".", "-");
  const { path, participant, step, attempt } = address;
  const subject = `evt.${path}.${participant}.${token}.${step}.${attempt}`;
  const bytes = new TextEncoder().encode(
    JSON.stringify({
      specversion: "1.0",
      id: subject,
      source: participant,
      type: answer.type,
      time: new Date().toISOString(),
      data: answer.data,
      command: String(sequence),
      ...carried, // what is undefined is left out
    }),
  );
  const room = address.direction === "do" ? SETTLEMENT_ROOM_BYTES : 0;
  if (bytes.length > ENVELOPE_BYTES_MAX - room) throw new Error(`the answer is too large: ${bytes.length} bytes`);
  return { subject, bytes };
}

/** `attempts/first/factor/cap[/jitter]`; one attempt where nothing is said. */
export function parseRetry(text) {
  if (text === undefined) return { attempts: 1, first: 0, factor: 1, cap: 0, jitter: 1 };
  const [attempts, first, factor, cap, jitter = 1, ...rest] = text.split("/").map(Number);
  const isGood = Number.isInteger(attempts) && attempts >= 1 && [first, factor, cap, jitter].every(Number.isFinite);
  if (!isGood || rest.length > 0) throw new Error(`retry ${JSON.stringify(text)} is not attempts/first/factor/cap`);
  return { attempts, first, factor, cap, jitter };
}

/** Seconds to wait after failed attempt n; `chance` is from 0 to 1. */
export function delaySeconds({ first, factor, cap, jitter }, n, chance) {
  return Math.min(cap, first * factor ** (n - 1)) * (1 - jitter * chance);
}
