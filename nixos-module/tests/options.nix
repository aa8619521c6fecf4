# The options of NixOS that the module sets, declared as far as the test needs them.
{ lib, ... }:
let
  open = lib.mkOption {
    type = lib.types.attrsOf lib.types.anything;
    default = { };
  };
  list =
    type:
    lib.mkOption {
      type = lib.types.listOf type;
      default = [ ];
    };
in
{
  options = {
    assertions = list lib.types.anything;
    environment.systemPackages = list lib.types.package;
    boot.kernel.sysctl = open;
    networking.firewall.allowedUDPPorts = list lib.types.port;
    networking.firewall.allowedTCPPorts = list lib.types.port;
    networking.firewall.interfaces = open;
    nix.extraOptions = lib.mkOption {
      type = lib.types.lines;
      default = "";
    };
    nix.settings = lib.mkOption {
      default = { };
      type = lib.types.submodule {
        freeformType = lib.types.anything;
        options.substituters = list lib.types.str;
        options.trusted-public-keys = list lib.types.str;
      };
    };
    systemd.services = open;
    systemd.sockets = open;
  };
}
