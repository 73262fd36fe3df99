/** The version in package.json. */
declare const PAGE_VERSION: string;
