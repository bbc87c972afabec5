// @peculiar/x509, with the metadata polyfill that it wants in place before it loads: import it from here only.

// oxlint-disable-next-line import/no-unassigned-import
import "reflect-metadata";

export * from "@peculiar/x509";
