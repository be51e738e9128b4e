// The order system's billing service once more, in JavaScript: node billing.mjs DATABASE CUSTOMERS

import { readFileSync } from "node:fs";
import { Database } from "./inbox.mjs";
import { Participant, Refused } from "./participant.mjs";

const CENTS_MAX = 100_000_000;

export const billing = new Participant("billing")
  .handles("payment.charge.v1", {
    event: "payment.charged.v1",
    check: hasFields({ order_id: isText, customer_id: isText, amount: isCents, reservation_id: isText }),
    run({ order_id, customer_id, amount }, tx) {
      // One relative statement that looks and takes: two orders cannot both have the last of the limit.
      const charged = tx
        .prepare(
          `UPDATE cards SET charged = charged + :amount
           WHERE customer_id = :customer_id AND state = 'valid' AND charged + :amount <= credit_limit`,
        )
        .run({ amount, customer_id });
      if (charged.changes === 0) throw new Refused(declined(customer_id, amount, tx));
      const charge_id = `charge-${order_id}`;
      writeLine(tx, "charged", customer_id, amount, charge_id);
      return { charge_id, customer_id, amount };
    },
  })
  .compensates("payment.refund.v1", {
    undoes: "payment.charge.v1",
    check: hasFields({ order_id: isText, reason: isText }),
    run(_, { charge_id, customer_id, amount }, tx) {
      tx.prepare("UPDATE cards SET charged = charged - ? WHERE customer_id = ?").run(amount, customer_id);
      writeLine(tx, "refunded", customer_id, -amount, charge_id);
    },
  });

function declined(customer, amount, tx) {
  const card = tx
    .prepare("SELECT state, credit_limit - charged AS available FROM cards WHERE customer_id = ?")
    .get(customer);
  if (!card) return `there is no customer ${customer}`;
  if (card.state !== "valid") return `card declined: the card of ${customer} is ${card.state}`;
  return `card declined: ${amount} cents were asked for, and ${card.available} are left of the limit`;
}

function writeLine(tx, entry, account, amount, reference) {
  tx.prepare(
    "INSERT INTO ledger (saga, entry, account, amount, reference, idempotency_key) VALUES (?, ?, ?, ?, ?, ?)",
  ).run(tx.saga, entry, account, amount, reference, tx.idempotencyKey);
}

/** The tables that the order system's reconciliation reads, and the cards of all customers in a new database. */
function tables(file) {
  return (sqlite) => {
    const isNew = !sqlite.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'cards'").get();
    if (!isNew) return;
    sqlite.exec(`
      CREATE TABLE cards (
        customer_id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        credit_limit INTEGER NOT NULL,
        charged INTEGER NOT NULL CHECK (charged BETWEEN 0 AND credit_limit)
      );
      CREATE TABLE ledger (
        number INTEGER PRIMARY KEY,
        at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
        saga TEXT NOT NULL,
        entry TEXT NOT NULL,
        account TEXT NOT NULL,
        amount INTEGER NOT NULL,
        reference TEXT NOT NULL,
        idempotency_key TEXT NOT NULL
      );
    `);
    const insert = sqlite.prepare("INSERT INTO cards VALUES (?, ?, ?, 0)");
    for (const line of readFileSync(file, "utf8").split("\n").filter(Boolean)) {
      const { customer_id, card, limit } = JSON.parse(line);
      insert.run(customer_id, card, limit);
    }
  };
}

function hasFields(fields) {
  return (data) => {
    for (const [name, isGood] of Object.entries(fields))
      if (!isGood(data[name])) throw new TypeError(`${name} is missing or not as agreed`);
  };
}
function isText(value) {
  return typeof value === "string";
}
function isCents(value) {
  return Number.isInteger(value) && value >= 0 && value <= CENTS_MAX;
}

const [database, customers] = process.argv.slice(2);
const { NATS_URL: servers = "nats://127.0.0.1:4222", NATS_USER: user, NATS_PASSWORD: pass } = process.env;
const ackWaitSeconds = Number(process.env.ACK_WAIT_SECONDS ?? 3); // as the administrator made the consumers
await billing.serve({ servers, user, pass, ackWaitSeconds, database: new Database(database, tables(customers)) });
