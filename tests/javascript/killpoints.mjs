// Named places at which a test may have this process killed, as in antiphon.link.killpoints.
//
// ANTIPHON_KILL_AT=worker.committed:3 sends SIGKILL to the process when it reaches that point for the third time.

const [wanted, count = "1"] = (process.env.ANTIPHON_KILL_AT ?? "").split(":");
let left = Number(count);

export function reached(point) {
  if (point !== wanted || --left !== 0) return;
  process.kill(process.pid, "SIGKILL");
  for (;;); // the signal is on its way; nothing happens after it
}
