// A participant after contracts/README.md: from the pull to the ack, exactly once in its own database.

import { AckPolicy, jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { consult, Database, Locked, RUN } from "./inbox.mjs";
import { reached } from "./killpoints.mjs";
import { Registration } from "./registration.mjs";
import { delaySeconds, derived, encodeAnswer, parseRetry, parseSubject } from "./wire.mjs";
import { readEnvelope, reasoned, Unusable } from "./wire.mjs";

/** A business no. What the handler did is rolled back. */
export class Refused extends Error {}
/** No further attempt will help. */
export class Unrecoverable extends Error {}

/** The command goes back to the server, and comes again after a while. */
class HandBack extends Error {
  constructor(reason, seconds = 0) {
    super(reason);
    this.seconds = seconds;
  }
}
/** All attempts of a command have failed; `parked` is the kind to park it under, if it is. */
class Exhausted extends Error {
  constructor(reason, parked) {
    super(reason);
    this.parked = parked;
  }
}
class Unhandled extends Error {}

const PULL_MILLISECONDS = 10_000; // a pull that the server forgot is made again after that long
const HELD_OF_EACH_CONSUMER = 8;
const PARKED_BYTES_MAX = 524_288; // as base64 it fits into a message
const AGAIN_SECONDS = 1; // after an answer that could not be stored, or a database that stayed locked

export class Participant {
  name;
  handlers = new Map(); // by type; a settlement has none

  constructor(name) {
    this.name = name;
  }

  /** `run(data, tx)` returns the data of the event; `check(data)` throws if the payload is not as agreed. */
  handles(type, { event, check, run }) {
    this.handlers.set(type, { kind: "command", check, run, event });
    this.handlers.set(derived(type, "settle"), { kind: "settlement", check: () => {} });
    return this;
  }

  /** `run(data, answered, tx)` is called only if the effect of the command `undoes` is there, with what was answered. */
  compensates(type, { undoes, check, run }) {
    this.handlers.set(type, { kind: "compensation", undoes, check, run });
    return this;
  }

  /** Work until SIGTERM or SIGINT. */
  async serve({ servers, user, pass, database, ackWaitSeconds = 3 }) {
    const nc = await connect({
      servers: servers.split(","),
      ...(user ? { user, pass } : {}),
      name: this.name,
      inboxPrefix: `_INBOX_${user ?? this.name}`, // the only subjects that it may subscribe to
      maxReconnectAttempts: -1,
      reconnectTimeWait: 500,
      pingInterval: 2_000,
      maxPingOut: 2,
    });
    nc.closed().then((error) => {
      if (!error) return;
      log("the connection is lost for good", { reason: error.message });
      process.exit(1);
    });
    const js = jetstream(nc, { timeout: 5_000 });
    const worker = new Worker(this, js, database, ackWaitSeconds);
    for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => worker.drain());
    const registration = new Registration(this, js, log);
    void registration.keep(); // beside the work, which waits for no answer to it
    await worker.run();
    await registration.takeBack();
    await nc.drain(); // the last acks leave before the connection is closed
    database.close();
  }
}

class Worker {
  #participant;
  #js;
  #database;
  #ackWaitSeconds;
  #pulls = new Set();
  #isDraining = false;
  #turn = Promise.resolve(); // one transaction at a time, as SQLite has one writer
  #pardoned = new Set(); // sequences whose noted attempt did not take place

  constructor(participant, js, database, ackWaitSeconds) {
    this.#participant = participant;
    this.#js = js;
    this.#database = database;
    this.#ackWaitSeconds = ackWaitSeconds;
  }

  async run() {
    const { name } = this.#participant;
    const consumers = [name, `${name}-undo`].map((each) => this.#bind(each));
    log("ready", { participant: name });
    const lanes = consumers.flatMap((each) => Array.from({ length: HELD_OF_EACH_CONSUMER }, () => this.#lane(each)));
    await Promise.all(lanes);
  }

  /** Stop pulling, finish what is in its transaction, hand back the rest. */
  drain() {
    this.#isDraining = true;
    for (const pull of this.#pulls) pull.stop();
  }

  /** A consumer by its name alone: with accounts, a participant may not ask the server about it. */
  #bind(durable) {
    const config = { durable_name: durable, ack_policy: AckPolicy.Explicit };
    return this.#js.consumers.getConsumerFromInfo({ stream_name: "SAGA", name: durable, config });
  }

  /** Pull one command, carry it out, and again: nothing is held that is not worked on. */
  async #lane(consumer) {
    while (!this.#isDraining) {
      let pull;
      try {
        pull = await consumer.fetch({ max_messages: 1, expires: PULL_MILLISECONDS, bind: true });
        this.#pulls.add(pull);
        if (this.#isDraining) pull.stop();
        for await (const message of pull) await this.#hold(message);
      } catch (error) {
        log("a pull failed", { reason: error.message });
        if (!this.#isDraining) await seconds(AGAIN_SECONDS);
      } finally {
        this.#pulls.delete(pull);
      }
    }
  }

  async #hold(message) {
    const lease = setInterval(() => message.working(), this.#ackWaitSeconds * 333);
    try {
      reached("worker.pulled");
      await this.#carryOut(message);
    } catch (error) {
      log("handed back", { subject: message.subject, reason: error.message });
      const delay = error instanceof HandBack ? error.seconds : AGAIN_SECONDS;
      message.nak(Math.round(delay * 1_000)); // without a delay, which a drain asks for, it comes again at once
    } finally {
      clearInterval(lease);
    }
  }

  /** Ends with an ack or a termination, or throws: then the command is handed back. */
  async #carryOut(message) {
    const order = { ...parseSubject(message.subject), sequence: message.seq, isRedelivered: message.redelivered };
    try {
      const envelope = readEnvelope(message.subject, message.data);
      Object.assign(order, { envelope }, this.#understood(order.direction, envelope));
      await this.#store(await this.#alone(() => this.#perform(order)));
    } catch (error) {
      if (error instanceof Unusable) return this.#giveUp(message, order, error.kind, error);
      if (!(error instanceof Exhausted)) throw error;
      if (error.parked) return this.#giveUp(message, order, error.parked, error);
      await this.#store(this.#encode(order, { kind: "exhausted", reason: error.message }));
    }
    reached("worker.event_stored");
    message.ack();
  }

  #understood(direction, { type, data, retry }) {
    const found = this.#participant.handlers.get(type);
    const handler = (found?.kind === "command") === (direction === "do") ? found : undefined;
    try {
      handler?.check(data);
      return { handler, kind: handler?.kind, retry: parseRetry(retry) };
    } catch (error) {
      throw new Unusable("undecodable", error.message, type);
    }
  }

  // --- in its turn --------------------------------------------------------------------------------------------------

  /** Run something when all that came before it has ended. */
  #alone(work) {
    const ended = this.#turn.then(() => {
      if (this.#isDraining) throw new HandBack("draining");
      return work();
    });
    this.#turn = ended.catch(() => {});
    return ended;
  }

  /** One attempt; returns an encoded answer that is safe to publish, or throws HandBack or Exhausted. */
  async #perform(order) {
    let isNoted = false;
    try {
      let found = this.#consult(order);
      if (found === RUN && this.#database.failed(order.sequence) >= order.retry.attempts)
        throw new Exhausted(`all ${order.retry.attempts} attempts have failed, or its workers died`);
      if (found === RUN && order.isRedelivered && !this.#pardoned.delete(order.sequence)) {
        // It may be what killed a worker. Should it kill this one, then during this call and no other.
        this.#database.noteFailure(order.sequence);
        this.#database.commit();
        isNoted = true;
        found = this.#consult(order);
      }
      const answer = found === RUN ? await this.#call(order, isNoted) : this.#encode(order, found);
      if (found.becomes) this.#database.write(order, found.becomes);
      reached("worker.in_transaction");
      this.#database.commit();
      reached("worker.committed");
      return answer;
    } catch (error) {
      this.#database.rollback();
      if (error instanceof Exhausted) throw error;
      if (error instanceof Locked) {
        if (isNoted) this.#pardoned.add(order.sequence);
        throw new HandBack(error.message, AGAIN_SECONDS);
      }
      const isFinal = error instanceof Refused && order.kind === "command" && order.envelope.retriable !== true;
      return isFinal ? this.#storeRefusal(order, error) : this.#fail(order, error, isNoted);
    }
  }

  /** Begin a transaction and ask the inbox; what no handler takes, or was tried often enough, is not run. */
  #consult(order) {
    this.#database.begin();
    if (!order.handler) throw new Unhandled(`${this.#participant.name} has no handler for ${order.envelope.type}`);
    return consult(this.#database.row(order), order.kind, order.attempt);
  }

  async #call(order, isNoted) {
    const { handler, envelope, saga, step, kind } = order;
    order.started = new Date().toISOString();
    order.tries = this.#database.failed(order.sequence) + (isNoted ? 0 : 1);
    const tx = { prepare: (sql) => this.#database.prepare(sql), saga, idempotencyKey: `${saga}/${step}` };
    if (kind === "command") {
      const answer = { type: handler.event, data: await handler.run(envelope.data, tx) };
      this.#database.write(order, "done", answer);
      return this.#encode(order, { kind: "done", ...answer });
    }
    const row = this.#database.row(order);
    tx.idempotencyKey += "/undo";
    await handler.run(envelope.data, JSON.parse(row.answer).data, tx);
    this.#database.write(order, "undone", JSON.parse(row.answer));
    return this.#encode(order, { kind: "undone", found: true });
  }

  /** A refusal has a transaction of its own, because the handler's was rolled back; the inbox is asked again. */
  #storeRefusal(order, { message }) {
    try {
      let found = this.#consult(order);
      if (found === RUN) {
        found = { kind: "refused", ...reasoned(message) };
        this.#database.write(order, "refused", reasoned(message));
      }
      const answer = this.#encode(order, found);
      this.#database.commit();
      reached("worker.committed");
      return answer;
    } catch (error) {
      this.#database.rollback();
      throw error;
    }
  }

  /** An attempt failed: note it before the command is handed back, or say that it was the last. */
  #fail(order, error, isNoted) {
    const { sequence, retry } = order;
    if (!isNoted) {
      this.#database.begin();
      this.#database.noteFailure(sequence);
      this.#database.commit();
    }
    const failed = this.#database.failed(sequence);
    log("an attempt failed", { subject: order.envelope.id, failed, reason: error.message });
    if (failed >= retry.attempts || error instanceof Unrecoverable)
      throw new Exhausted(error.message, error instanceof Unhandled ? "unhandled" : undefined);
    throw new HandBack(error.message, delaySeconds(retry, failed, Math.random()));
  }

  // --- answers ------------------------------------------------------------------------------------------------------

  #encode(order, answer) {
    const { envelope, started, sequence } = order;
    const tries = order.tries > 1 ? order.tries : undefined;
    const { traceparent, type } = envelope;
    return encodeAnswer(order, sequence, worded(answer, type), { started, tries, traceparent });
  }

  /** Have an event stored; that it is stored already is as good. */
  async #store({ subject, bytes }) {
    try {
      await this.#js.publish(subject, bytes);
    } catch (error) {
      if (!(error.code === 10077 && error.message.includes("per subject"))) throw error;
      await this.#makeSure(subject, bytes);
    }
  }

  /** A leader that is cut off says "already" of what it has only proposed. By this header it tells the two apart. */
  async #makeSure(subject, bytes) {
    try {
      await this.#js.publish(subject, bytes, { expect: { lastSubjectSequence: 0 } });
    } catch (error) {
      if (error.code !== 10071) throw error;
    }
  }

  /** Park a command, free its saga from waiting if its type can be read, and end it. */
  async #giveUp(message, order, kind, { message: reason, type = order.envelope?.type }) {
    const { name } = this.#participant;
    const { seq: sequence, subject } = message;
    const data = Buffer.from(message.data.subarray(0, PARKED_BYTES_MAX)).toString("base64");
    const parked = { kind, reason, noticed_by: name, stream: "SAGA", sequence, subject, data };
    await this.#js.publish(`parked.${kind}.${name}.coordinator`, JSON.stringify(parked));
    if (type) {
      const answer = { type: derived(type, "exhausted"), data: reasoned(reason) };
      await this.#store(encodeAnswer(order, sequence, answer, { traceparent: order.envelope?.traceparent }));
    }
    message.term(reason);
    log("parked", { kind, subject, reason });
  }
}

/** The type and data that an answer has on the wire. */
function worded(answer, type) {
  const { kind, ...rest } = answer;
  switch (kind) {
    case "done":
      return { type: rest.type, data: rest.data };
    case "undone":
      return { type: derived(type, "done"), data: { found: rest.found } };
    case "settled": {
      const happened = { happened: true, type: rest.type, reply: rest.data };
      const settled = type.replace(/\.settle\.(v\d+)$/, ".settled.$1");
      return { type: settled, data: rest.happened ? happened : { happened: false } };
    }
    default: // refused, exhausted, superseded
      return { type: derived(type, kind), data: reasoned(rest.reason) };
  }
}

const seconds = (count) => new Promise((resolve) => setTimeout(resolve, count * 1_000));

const log = (event, values) => console.error(JSON.stringify({ event, time: new Date().toISOString(), ...values }));
