// Saying what this process does, for whoever looks at what runs; nothing depends on it.

import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { headers } from "@nats-io/transport-node";

const RENEW_MILLISECONDS = 30_000; // it is forgotten after 90 seconds
const HOST_CHARACTERS_MAX = 40;

/** The registration of one process: stored at once, again and again, and taken back at the end. */
export class Registration {
  #js;
  #subject;
  #value;
  #log;
  #timer;
  #isFailing = false;

  constructor(participant, js, log) {
    const host = hostname().replace(/[^A-Za-z0-9_-]/g, "_").slice(0, HOST_CHARACTERS_MAX);
    const instance = `${host}-${randomBytes(6).toString("hex")}`;
    this.#js = js;
    this.#log = log;
    this.#subject = `$KV.ANTIPHON_PARTICIPANTS.${participant.name}.${instance}`;
    this.#value = JSON.stringify({
      name: participant.name,
      instance,
      started: new Date().toISOString(),
      version: process.env.ANTIPHON_PROGRAM_VERSION ?? "",
      library: `participant.mjs, Node ${process.versions.node}`,
      wire: 2,
      ...duties(participant),
    });
  }

  keep() {
    this.#timer = setInterval(() => this.#store(), RENEW_MILLISECONDS);
    return this.#store();
  }

  /** This process is there no more; should that be lost, it is forgotten by itself. */
  async takeBack() {
    clearInterval(this.#timer);
    const forget = headers();
    forget.set("KV-Operation", "DEL");
    await this.#js.publish(this.#subject, "", { headers: forget }).catch(() => {});
  }

  async #store() {
    try {
      await this.#js.publish(this.#subject, this.#value);
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing) this.#log("registration failed", { subject: this.#subject, reason: error.message });
      this.#isFailing = true;
    }
  }
}

/** All that a participant handles; a settlement is answered by whoever handles the command. */
function duties({ name, handlers }) {
  const message = (type) => ({ type, owner: name });
  const called = (type) => type.split(".").at(-2); // payment.charge.v1 is handled by `charge`
  const of = (kind) => [...handlers].filter(([, handler]) => handler.kind === kind);
  return {
    commands: of("command").map(([type, { event }]) => ({
      command: message(type),
      reply: message(event),
      handler: called(type),
    })),
    compensations: of("compensation").map(([type, { undoes }]) => ({
      compensation: message(type),
      command: message(undoes),
      handler: called(type),
    })),
  };
}
