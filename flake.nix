{
  description = "haulout: one download for the whole office, a peer-to-peer cache for Nix";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = forAll (pkgs: rec {
        haulout = pkgs.callPackage ./nix/package.nix { };
        default = haulout;
      });

      apps = forAll (pkgs: {
        default = {
          type = "app";
          program = "${self.packages.${pkgs.stdenv.hostPlatform.system}.default}/bin/haulout";
          meta.description = "The haulout agent and command line";
        };
      });

      overlays.default = final: _: { haulout = final.callPackage ./nix/package.nix { }; };

      # The module with this flake's package, so that no overlay is needed.
      nixosModules = rec {
        haulout =
          { lib, pkgs, ... }:
          {
            imports = [ ./nixos-module ];
            services.haulout.package =
              lib.mkDefault
                self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          };
        default = haulout;
      };

      checks = forAll (
        pkgs:
        let
          inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) haulout;
          vm = test: pkgs.testers.runNixOSTest (import test { module = self.nixosModules.default; });
        in
        {
          inherit haulout;
          module = pkgs.runCommand "haulout-module" { nativeBuildInputs = [ pkgs.nix ]; } ''
            nix-instantiate --store dummy:// --eval --strict --json --arg lib ${pkgs.path}/lib \
              ${./nixos-module}/tests/eval.nix > $out
          '';
          vm-office = vm ./nixos-module/vm/office.nix;
          vm-wave = vm ./nixos-module/vm/wave.nix;
        }
      );

      devShells = forAll (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.haulout ];
          # What ./test wants beyond Rust.
          packages = with pkgs; [
            cargo-deny
            cargo-nextest
            clippy
            iproute2
            nginx
            nix
            nodejs
            rustfmt
            util-linux
          ];
        };
      });

      formatter = forAll (pkgs: pkgs.nixfmt-rfc-style);
    };
}
