// A participant whose handler takes its time: node slow.mjs DATABASE MILLISECONDS

import { setTimeout } from "node:timers/promises";
import { Database } from "./inbox.mjs";
import { Participant } from "./participant.mjs";

const [path, milliseconds] = process.argv.slice(2);
const tables = (sqlite) => sqlite.exec("CREATE TABLE IF NOT EXISTS calls (saga TEXT NOT NULL)");
const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;

await new Participant("billing")
  .handles("payment.charge.v1", {
    event: "payment.charged.v1",
    check: () => {},
    async run(_, tx) {
      console.error(`called for ${tx.saga}`);
      await setTimeout(Number(milliseconds));
      tx.prepare("INSERT INTO calls VALUES (?)").run(tx.saga);
      return {};
    },
  })
  .serve({ servers, user, pass, ackWaitSeconds: 1, database: new Database(path, tables) });
