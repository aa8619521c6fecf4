# A wave of updates: one machine has something new, all others want it at the same moment.
{ module }:
let
  common = import ./common.nix { inherit module; };
in
{
  name = "haulout-wave";
  nodes = {
    seed = common.agent;
    one = common.agent;
    two = common.agent;
    three = common.agent;
  };
  testScript = ''
    ${common.helpers}
    start_all()
    clients = [one, two, three]
    for machine in [seed, *clients]:
        machine.wait_for_unit("haulout.service")
    for machine in [seed, *clients]:
        wait_for_peers(machine, 3)

    paths = [make_path(seed, f"update{n}", mebibytes=16) for n in range(4)]
    for machine in clients:
        machine.execute(f"nix-store --realise {' '.join(paths)} > /tmp/log 2>&1 &")
    for machine in clients:
        for path in paths:
            machine.wait_until_succeeds(f"nix-store --check-validity {path}", timeout=120)
            machine.succeed(f"nix-store --verify-path {path}")
  '';
}
