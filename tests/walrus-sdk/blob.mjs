// The published SDK as a user of a devnet. Each line on standard input is a command:
//   {"write": base64, "deletable": bool}  -> {"blobId", "object"}
//   {"read": blobId}                      -> {"data": base64}
//   {"status": blobId}                    -> {"status"}
//   {"files": [{name, data, tags}]}       -> {"blobId", "ids", "files", "attributes"}: a quilt, read back
//   {"attributes": objectId, "set": {…}}  -> {"attributes"}: set, null for taken away, read back
// A failure is answered by {"error"}. The environment has RPC, SYSTEM, STAKING and ACCOUNT, and
// NODE_EXTRA_CA_CERTS with the nodes' certificates, so TLS is verified in the ordinary way.
import { createInterface } from 'node:readline';
import { SuiGrpcClient } from '@mysten/sui/grpc';
import { Ed25519Keypair } from '@mysten/sui/keypairs/ed25519';
import { WalrusFile, walrus } from '@mysten/walrus';

const { RPC, SYSTEM, STAKING, ACCOUNT } = process.env;
const signer = Ed25519Keypair.fromSecretKey(ACCOUNT);
// The SDK insists on one of the two public networks by name; the ids are the devnet's.
const client = new SuiGrpcClient({ network: 'testnet', baseUrl: RPC }).$extend(
  walrus({ packageConfig: { systemObjectId: SYSTEM, stakingPoolId: STAKING } }),
);

const commands = {
  async write({ write, deletable }) {
    const blob = new Uint8Array(Buffer.from(write, 'base64'));
    const { blobId, blobObject } = await client.walrus.writeBlob({
      blob,
      deletable,
      epochs: 3,
      signer,
    });
    return { blobId, object: blobObject.id };
  },
  async read({ read }) {
    const data = await client.walrus.readBlob({ blobId: read });
    return { data: Buffer.from(data).toString('base64') };
  },
  async status({ status }) {
    return { status: await client.walrus.getVerifiedBlobStatus({ blobId: status }) };
  },
  async files({ files }) {
    const all = files.map(({ name, data, tags }) =>
      WalrusFile.from({
        contents: new Uint8Array(Buffer.from(data, 'base64')),
        identifier: name,
        tags,
      }),
    );
    const written = await client.walrus.writeFiles({
      files: all,
      deletable: true,
      epochs: 3,
      attributes: { made: 'by the SDK' },
      signer,
    });
    const [{ blobId, blobObject }] = written;
    const attributes = await client.walrus.readBlobAttributes({ blobObjectId: blobObject.id });
    const blob = await client.walrus.getBlob({ blobId });
    const told = async (file) => ({
      name: await file.getIdentifier(),
      tags: await file.getTags(),
      data: Buffer.from(await file.bytes()).toString('base64'),
    });
    const inBlob = await Promise.all((await blob.files()).map(told));
    // Each by its patch id alone, too.
    const ids = written.map(({ id }) => id);
    const byId = await Promise.all((await client.walrus.getFiles({ ids })).map(told));
    return { blobId, object: blobObject.id, ids, files: inBlob, byId, attributes };
  },
  async attributes({ attributes: blobObjectId, set }) {
    await client.walrus.executeWriteBlobAttributesTransaction({
      blobObjectId,
      attributes: set,
      signer,
    });
    return { attributes: await client.walrus.readBlobAttributes({ blobObjectId }) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const name = Object.keys(command).find((key) => key in commands);
  let answer;
  try {
    answer = await commands[name](command);
  } catch (error) {
    answer = { error: `${error?.name}: ${error?.message}`, cause: String(error?.cause ?? '') };
    if (process.env.DEBUG) console.error(error);
  }
  console.log(JSON.stringify(answer, (_, value) => (typeof value === 'bigint' ? `${value}` : value)));
}
