# Three machines: they find each other, one gives a path, a peer is lost in between, and the agent is switched off.
{ module }:
let
  common = import ./common.nix { inherit module; };
in
{
  name = "haulout-office";
  nodes = {
    a = common.agent;
    b = common.agent;
    c = {
      imports = [ common.agent ];
      # The usual neighbour on port 5353.
      services.avahi.enable = true;
    };
  };
  testScript = ''
    ${common.helpers}
    start_all()
    for machine in (a, b, c):
        machine.wait_for_unit("haulout.service")
        machine.wait_for_open_port(5299)

    with subtest("they find each other, through the firewall"):
        for machine in (a, b, c):
            wait_for_peers(machine, 2)

    with subtest("a path goes from one to the other"):
        path = make_path(a, "first")
        b.wait_until_succeeds(f"nix-store --realise {path}", timeout=60)
        b.succeed(f"nix-store --verify-path {path}")

    with subtest("a lost peer is not missed"):
        a.block()
        c.wait_until_succeeds(f"nix-store --realise {path}", timeout=60)
        c.succeed(f"nix-store --verify-path {path}")
        a.unblock()
        wait_for_peers(a, 2)

    with subtest("Nix works while the agent restarts, and when it is gone"):
        other = make_path(a, "second")
        b.succeed("systemctl restart haulout.service")
        b.wait_until_succeeds(f"nix-store --realise {other}", timeout=60)
        b.succeed("systemctl kill --signal=KILL haulout.service")
        b.succeed("nix-store --query --hash " + path)
        b.wait_for_unit("haulout.service")

    with subtest("the key of the machine is trusted by its Nix"):
        b.succeed("nix config show trusted-public-keys | grep -q haulout-host-")

    with subtest("avahi still answers"):
        c.succeed("systemctl is-active avahi-daemon.service")
  '';
}
