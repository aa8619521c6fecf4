# Without flakes: `nix-build` builds the program; the module is nixos-module/default.nix, to be imported together with
# `services.haulout.package = pkgs.callPackage ./nix/package.nix { };`.
{
  pkgs ? import <nixpkgs> { },
}:
pkgs.callPackage ./nix/package.nix { }
