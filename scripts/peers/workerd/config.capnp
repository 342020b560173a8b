# A fresh isolate of workerd for each program: a worker that loads others. Where it listens is an argument.
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "runner", worker = .runner)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "runner")],
);
const runner :Workerd.Worker = (
  modules = [(name = "runner.js", esModule = embed "runner.js")],
  compatibilityDate = "2026-01-01",
  compatibilityFlags = ["experimental"],
  bindings = [(name = "PROGRAMS", workerLoader = (id = "programs"))],
);
