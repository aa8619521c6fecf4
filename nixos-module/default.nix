# services.haulout: the agent of https://github.com/haulout/haulout on NixOS.
#
#   services.haulout.enable = true;
#
# is enough for a machine on a trusted network. What each option changes is in its description; the
# guide is docs/install.md.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.haulout;
  toml = pkgs.formats.toml { };
  url = "http://${cfg.settings.http.listen}";

  written = toml.generate "haulout.toml" cfg.settings;
  # A mistake in `settings` fails the build of the system, not the start of the agent.
  checked = pkgs.runCommand "haulout.toml" { } ''
    ${lib.getExe cfg.package} up --check --config ${written} > /dev/null
    cp ${written} $out
  '';

  # UDP: multicast DNS, and the agents themselves.
  ports = [
    5353
    cfg.settings.mesh.port
  ];

  secrets = lib.filterAttrs (_: file: file != null) {
    mesh-secret = cfg.meshSecretFile;
    signing-key = cfg.signingKeyFile;
  };
in
{
  options.services.haulout = {
    enable = lib.mkEnableOption "haulout, which shares Nix store paths among the machines of a local network";

    package = lib.mkPackageOption pkgs "haulout" { };

    interfaces = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "enp1s0" ];
      description = ''
        Network interfaces to use, for finding other machines, for serving them and for the opening of the firewall. Empty means
        every physical interface; bridges of containers, virtual machines and VPNs are left out either way unless named here.
      '';
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Let UDP port 5353 (multicast DNS) and the port of the agents in, on {option}`services.haulout.interfaces` where these are
        named. Without it no other machine can be found or served.
      '';
    };

    configureNix = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Make Nix ask the agent first: adds it to {option}`nix.settings.substituters` (the others stay), trusts the key that the agent made
        for itself on this machine, and sets {option}`nix.settings.fallback` unless it is set elsewhere, so that no build
        fails because a substituter does.
      '';
    };

    meshSecretFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "/run/secrets/haulout-mesh";
      description = ''
        Path, as a string, of a file with the secret that the machines of a team share. Only machines that know it take part. It is handed to
        the agent as a systemd credential and never enters the Nix store. Make one with `head -c 32 /dev/urandom | base64`.
      '';
    };

    signingKeyFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "/run/secrets/haulout-signing-key";
      description = ''
        Path, as a string, of the secret key (`nix-store --generate-binary-cache-key`) with which paths built here are signed for the
        other members of the mesh. Put its public half into {option}`nix.settings.trusted-public-keys` of all of them, and set
        `share.local_builds = true` in {option}`services.haulout.settings`.
      '';
    };

    settings = lib.mkOption {
      default = { };
      example = {
        cache.quota = "50 GB";
        share.local_builds = true;
      };
      description = ''
        Content of haulout.toml. Every setting of the agent may be given; `haulout up --check` prints them all.
      '';
      type = lib.types.submodule {
        freeformType = toml.type;
        options = {
          http.listen = lib.mkOption {
            type = lib.types.str;
            default = "127.0.0.1:5299";
            description = "Address and port of the substituter for this machine's Nix.";
          };
          http.allow_remote = lib.mkOption {
            type = lib.types.bool;
            default = false;
            description = "Whether `http.listen` may be an address that other machines reach.";
          };
          mesh.port = lib.mkOption {
            type = lib.types.port;
            default = 5299;
            description = "UDP port of the agents. Must be fixed, for the firewall.";
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.settings.mesh.port != 0;
        message = "services.haulout.settings.mesh.port must be a fixed port: the firewall is opened for it";
      }
      {
        assertion = cfg.settings.share.local_builds or false -> cfg.signingKeyFile != null;
        message = "services.haulout.settings.share.local_builds needs services.haulout.signingKeyFile, or nobody believes what was built here";
      }
      {
        assertion = cfg.signingKeyFile != null -> cfg.meshSecretFile != null;
        message = "services.haulout.signingKeyFile needs services.haulout.meshSecretFile: local builds are given to members of a mesh only";
      }
    ];

    # The secrets are credentials; their paths in the settings would be wrong.
    services.haulout.settings = {
      mesh.interfaces = lib.mkIf (cfg.interfaces != [ ]) cfg.interfaces;
      state.dir = lib.mkDefault "/var/lib/haulout";
      cache.dir = lib.mkDefault "/var/cache/haulout";
    };

    nix = lib.mkIf cfg.configureNix {
      settings = {
        substituters = lib.mkBefore [ url ];
        # Users who choose their own substituters may choose this one too.
        trusted-substituters = [ url ];
        fallback = lib.mkDefault true;
      };
      # Holds the public key of this very machine, once the agent has made it.
      extraOptions = ''
        !include /run/haulout/nix.conf
      '';
    };

    networking.firewall = lib.mkIf cfg.openFirewall (
      if cfg.interfaces == [ ] then
        { allowedUDPPorts = ports; }
      else
        { interfaces = lib.genAttrs cfg.interfaces (_: { allowedUDPPorts = ports; }); }
    );

    # The usual 208 KiB lose packets at 1 Gbit/s.
    boot.kernel.sysctl = {
      "net.core.rmem_max" = lib.mkDefault 4194304;
      "net.core.wmem_max" = lib.mkDefault 4194304;
    };

    environment.systemPackages = [ cfg.package ];

    # systemd holds the port: Nix is never refused, also while the agent is being restarted.
    systemd.sockets.haulout = {
      description = "Substituter port of the haulout agent";
      wantedBy = [ "sockets.target" ];
      socketConfig = {
        ListenStream = cfg.settings.http.listen;
        Backlog = 1024;
      };
    };

    systemd.services.haulout = {
      description = "haulout, a peer-to-peer cache for Nix";
      documentation = [ "https://github.com/haulout/haulout" ];
      requires = [ "haulout.socket" ];
      after = [
        "haulout.socket"
        "network.target"
      ];
      # So that the daemon reads /run/haulout/nix.conf when it is there.
      before = [ "nix-daemon.service" ];
      wantedBy = [ "multi-user.target" ];
      environment = {
        HAULOUT_CONFIG = "${if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then checked else written}";
      }
      // lib.optionalAttrs (secrets ? mesh-secret) { HAULOUT_MESH_SECRET_FILE = "%d/mesh-secret"; }
      // lib.optionalAttrs (secrets ? signing-key) { HAULOUT_MESH_SIGNING_KEY_FILE = "%d/signing-key"; };
      # Restart the service alone when the configuration changes; the socket stays.
      stopIfChanged = false;
      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig = import ./service.nix // {
        ExecStart = "${lib.getExe cfg.package} up";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        LoadCredential = lib.mapAttrsToList (name: file: "${name}:${file}") secrets;
      };
    };
  };
}
