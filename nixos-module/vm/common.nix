# What the machines of the VM tests have in common: enough room, no Internet, and a signed path to pass around.
{ module }:
{
  # A machine with the agent, as an administrator would set it up.
  agent =
    { lib, ... }:
    {
      imports = [ module ];
      services.haulout.enable = true;
      virtualisation.writableStore = true;
      virtualisation.memorySize = 1024;
      # Only the agent: cache.nixos.org cannot be reached from here.
      nix.settings.substituters = lib.mkForce [ "http://127.0.0.1:5299" ];
      nix.settings.trusted-public-keys = lib.mkForce [ (builtins.readFile ./test-key.pub) ];
      nix.settings.experimental-features = [ "nix-command" ];
    };

  # Python: makes a path that only `machine` has, signed by the test's key.
  helpers = ''
    KEY = "${./test-key.sec}"

    def make_path(machine, name, mebibytes=4):
        machine.succeed(f"head -c {mebibytes * 1024 * 1024} /dev/urandom > /tmp/{name}")
        path = machine.succeed(f"nix-store --add /tmp/{name}").strip()
        machine.succeed(f"nix store sign --key-file {KEY} {path}")
        return path

    def peers(machine):
        import json
        report = json.loads(machine.succeed("haulout peers --json"))
        return [peer for peer in report["peers"] if peer["state"] == "connected"]

    def wait_for_peers(machine, count):
        with machine.nested(f"wait for {count} peers"):
            retry(lambda _: len(peers(machine)) >= count, 60)
  '';
}
