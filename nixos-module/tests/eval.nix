# What the module makes of a few configurations, as one value that a test compares. With plain Nix:
#
#   cd nixos-module/tests
#   nix-instantiate --store dummy:// --eval --strict --json --arg lib ./lib.nix eval.nix
#
# and with nixpkgs' own library: the same with --arg lib '<nixpkgs/lib>'.
{
  lib,
  # Configurations of the guides.
  guides ? [ ],
}:
let
  l = import lib;

  package =
    name:
    derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "/bin/sh";
    }
    // {
      pname = name;
      meta.mainProgram = name;
    };

  pkgs = {
    haulout = package "haulout";
    coreutils = package "coreutils";
    stdenv.buildPlatform.canExecute = _: true;
    stdenv.hostPlatform = { };
    formats.toml = _: {
      type = l.types.anything // {
        description = "TOML value";
      };
      generate = name: value: builtins.toFile name (builtins.toJSON value);
    };
    runCommand = name: _: script: package name // { inherit script; };
  };

  eval =
    modules:
    (l.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        ./options.nix
        ../default.nix
        # As NixOS itself does.
        {
          nix.settings.substituters = l.mkAfter [ "https://cache.nixos.org/" ];
          nix.settings.trusted-public-keys = [ "cache.nixos.org-1:key" ];
        }
      ]
      ++ modules;
    }).config;

  with' = haulout: eval [ { services.haulout = { enable = true; } // haulout; } ];

  off = eval [ ];
  plain = with' { };
  team = with' {
    meshSecretFile = "/run/keys/mesh";
    signingKeyFile = "/run/keys/sign";
    interfaces = [
      "enp1s0"
      "wlan0"
    ];
    settings = {
      share.local_builds = true;
      cache.quota = "50 GB";
      mesh.port = 6000;
      http.listen = "127.0.0.1:6001";
    };
  };
  closed = with' {
    openFirewall = false;
    configureNix = false;
  };
  others = eval [
    {
      services.haulout.enable = true;
      nix.settings.substituters = [ "https://team.example" ];
      nix.settings.fallback = false;
      boot.kernel.sysctl."net.core.rmem_max" = 1000;
    }
  ];

  # The text of unit sections, for systemd-analyze.
  line =
    key: value:
    if value == true then
      "${key}=true\n"
    else if value == false then
      "${key}=false\n"
    else
      "${key}=${toString value}\n";
  lines =
    section:
    builtins.concatStringsSep "" (
      builtins.concatLists (
        l.mapAttrsToList (
          key: value: map (line key) (if builtins.isList value then value else [ value ])
        ) section
      )
    );
  environment = service: builtins.concatStringsSep "" (l.mapAttrsToList (k: v: "Environment=${k}=${v}\n") service.environment);
  unit = service: ''
    [Unit]
    Description=${service.description}
    ${lines service.unitConfig}
    [Service]
    ${environment service}${lines service.serviceConfig}'';

  refused =
    configuration:
    let
      config = eval [ configuration ];
    in
    !(builtins.tryEval (builtins.deepSeq [ config.systemd config.services.haulout.settings ] true)).success;
  complaints = config: map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
in
{
  off = {
    inherit (off.nix) settings extraOptions;
    inherit (off.systemd) services sockets;
    inherit (off.networking) firewall;
  };
  plain = {
    inherit (plain.nix) settings extraOptions;
    inherit (plain.networking) firewall;
    socket = plain.systemd.sockets.haulout;
    before = plain.systemd.services.haulout.before;
    stopIfChanged = plain.systemd.services.haulout.stopIfChanged;
    toml = plain.services.haulout.settings;
    sysctl = plain.boot.kernel.sysctl;
    complaints = complaints plain;
  };
  team = {
    inherit (team.nix) settings;
    inherit (team.networking) firewall;
    socket = team.systemd.sockets.haulout.socketConfig.ListenStream;
    toml = team.services.haulout.settings;
    credentials = team.systemd.services.haulout.serviceConfig.LoadCredential;
    environment = builtins.removeAttrs team.systemd.services.haulout.environment [ "HAULOUT_CONFIG" ];
    complaints = complaints team;
  };
  closed = {
    inherit (closed.nix) settings extraOptions;
    inherit (closed.networking) firewall;
  };
  others = {
    inherit (others.nix) settings;
    sysctl = others.boot.kernel.sysctl;
  };
  refused = {
    port = refused {
      services.haulout = {
        enable = true;
        settings.mesh.port = 99999;
      };
    };
    misspelt = refused { services.haulout.enabel = true; };
    secret = refused {
      services.haulout = {
        enable = true;
        meshSecretFile = 7;
      };
    };
  };
  complaints = {
    port = complaints (with' { settings.mesh.port = 0; });
    unsigned = complaints (with' { settings.share.local_builds = true; });
    unshared = complaints (with' { signingKeyFile = "/run/keys/sign"; });
  };
  guides = map (
    guide:
    let
      config = eval [ guide ];
    in
    {
      toml = config.services.haulout.settings;
      complaints = complaints config;
      keys = config.nix.settings.trusted-public-keys;
    }
  ) guides;
  unit = unit team.systemd.services.haulout;
  service = import ../service.nix;
}
