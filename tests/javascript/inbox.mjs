// What was done already, in the database of the effects: one row a saga and step, shared by do and undo.

import { DatabaseSync } from "node:sqlite";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS inbox (
    saga TEXT NOT NULL,     -- type and id, as in order/order-0001
    step TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('done', 'refused', 'undone', 'void')),
    attempt INTEGER NOT NULL,
    answer TEXT,            -- of done: type and data; of refused: the reason
    PRIMARY KEY (saga, step)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS attempts (
    sequence INTEGER PRIMARY KEY,  -- the command's, in SAGA
    failed INTEGER NOT NULL        -- handler calls that failed, or during which the process died
  ) STRICT;
`;
const SQLITE_BUSY = 5;
const BUSY_MILLISECONDS = 1_000; // the event loop stands still meanwhile

/** Somebody else has the database; nothing was tried. */
export class Locked extends Error {}

export const RUN = Object.freeze({ kind: "run" });
const overtaken = () => ({ kind: "superseded", reason: "a later attempt or a compensation came first" });
const stored = (row) => ({ kind: row.state, ...JSON.parse(row.answer) });
const undone = (found) => () => ({ kind: "undone", found });
const happened = (row) => ({ kind: "settled", happened: true, ...JSON.parse(row.answer) });
const never = () => ({ kind: "settled", happened: false });
const voiding = (rule) => () => ({ ...rule(), becomes: "void" });

// The table of contracts/README.md.
const RULES = {
  command: {
    none: () => RUN,
    done: (row, attempt) => (attempt >= row.attempt ? stored(row) : overtaken()),
    refused: (row, attempt) =>
      attempt === row.attempt ? stored(row) : attempt > row.attempt ? RUN : overtaken(),
    undone: overtaken,
    void: overtaken,
  },
  compensation: {
    none: voiding(undone(false)),
    done: () => RUN,
    refused: voiding(undone(false)),
    undone: undone(true),
    void: undone(false),
  },
  settlement: { none: voiding(never), done: happened, refused: voiding(never), undone: happened, void: never },
};

/** What a row says about a command, compensation or settlement: to run its handler, or an answer without one. */
export const consult = (row, kind, attempt) => RULES[kind][row?.state ?? "none"](row, attempt);

/** The participant's database, with one transaction at a time: whoever uses it waits for its turn first. */
export class Database {
  #sqlite;

  constructor(path, tables) {
    this.#sqlite = new DatabaseSync(path, { timeout: 30_000 });
    this.#sqlite.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    this.#sqlite.exec("BEGIN IMMEDIATE");
    this.#sqlite.exec(SCHEMA);
    tables(this.#sqlite);
    this.#sqlite.exec(`COMMIT; PRAGMA busy_timeout = ${BUSY_MILLISECONDS};`);
  }

  /** Take the write lock, which claims every row of the inbox, and with it the one that is asked about next. */
  begin() {
    try {
      this.#sqlite.exec("BEGIN IMMEDIATE");
    } catch (error) {
      throw error.errcode === SQLITE_BUSY ? new Locked("the database is locked") : error;
    }
  }

  commit() {
    this.#sqlite.exec("COMMIT");
  }

  rollback() {
    if (this.#sqlite.isTransaction) this.#sqlite.exec("ROLLBACK");
  }

  row({ saga, step }) {
    return this.#sqlite.prepare("SELECT * FROM inbox WHERE saga = ? AND step = ?").get(saga, step);
  }

  write({ saga, step, attempt }, state, answer) {
    this.#sqlite
      .prepare("INSERT OR REPLACE INTO inbox (saga, step, state, attempt, answer) VALUES (?, ?, ?, ?, ?)")
      .run(saga, step, state, attempt, answer === undefined ? null : JSON.stringify(answer));
  }

  failed(sequence) {
    return this.#sqlite.prepare("SELECT failed FROM attempts WHERE sequence = ?").get(sequence)?.failed ?? 0;
  }

  /** Note one more failed attempt, within the open transaction. */
  noteFailure(sequence) {
    this.#sqlite
      .prepare("INSERT INTO attempts VALUES (?, 1) ON CONFLICT DO UPDATE SET failed = failed + 1")
      .run(sequence);
  }

  /** What handlers get to change their own tables with. */
  prepare(sql) {
    return this.#sqlite.prepare(sql);
  }

  close() {
    this.#sqlite.close();
  }
}
