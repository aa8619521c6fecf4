//! `sui.rpc.v2.MovePackageService`: the one function whose signature clients look at.
//!
//! Walrus' TypeScript SDK learns the type of WAL coins from `staking::stake_with_pool`.

use sui_rpc::proto::sui::rpc::v2::{
    FunctionDescriptor, GetDatatypeRequest, GetDatatypeResponse, GetFunctionRequest,
    GetFunctionResponse, GetPackageRequest, GetPackageResponse, ListPackageVersionsRequest,
    ListPackageVersionsResponse, OpenSignature, OpenSignatureBody, function_descriptor::Visibility,
    move_package_service_server::MovePackageService, open_signature::Reference,
    open_signature_body::Type,
};
use sui_sdk_types::Address;
use tonic::{Request, Response, Status};

use super::{
    Service,
    errors::{address, missing, not_found},
};
use crate::sui::model::Kind;

#[tonic::async_trait]
impl MovePackageService for Service {
    async fn get_function(
        &self,
        request: Request<GetFunctionRequest>,
    ) -> Result<Response<GetFunctionResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let id = address(request.package_id.as_deref(), "package_id", "package_id")?;
            let module = request.module_name.as_deref().ok_or_else(|| missing("module_name"))?;
            let name = request.name.as_deref().ok_or_else(|| missing("name"))?;
            let packages = &view.chain.packages;
            let is_walrus = packages.get(id).is_some_and(|package| package.kind == Kind::Walrus);
            if !is_walrus || (module, name) != ("staking", "stake_with_pool") {
                return Err(not_found(format!("Function {id}::{module}::{name} not found")));
            }
            let mut response = GetFunctionResponse::default();
            response.function = Some(stake_with_pool(packages.walrus(), packages.wal()));
            Ok(response)
        })
    }

    async fn get_package(
        &self,
        _: Request<GetPackageRequest>,
    ) -> Result<Response<GetPackageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_datatype(
        &self,
        _: Request<GetDatatypeRequest>,
    ) -> Result<Response<GetDatatypeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_package_versions(
        &self,
        _: Request<ListPackageVersionsRequest>,
    ) -> Result<Response<ListPackageVersionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// `public fun stake_with_pool(&mut Staking, Coin<WAL>, ID, &mut TxContext): StakedWal`.
fn stake_with_pool(walrus: Address, wal: Address) -> FunctionDescriptor {
    let two = Address::TWO;
    let coin = datatype(two, "coin::Coin", vec![datatype(wal, "wal::WAL", vec![])]);
    let mut function = FunctionDescriptor::default();
    function.name = Some("stake_with_pool".to_owned());
    function.visibility = Some(Visibility::Public as i32);
    function.is_entry = Some(false);
    function.parameters = vec![
        parameter(Some(Reference::Mutable), datatype(walrus, "staking::Staking", vec![])),
        parameter(None, coin),
        parameter(None, datatype(two, "object::ID", vec![])),
        parameter(Some(Reference::Mutable), datatype(two, "tx_context::TxContext", vec![])),
    ];
    function.returns = vec![parameter(None, datatype(walrus, "staked_wal::StakedWal", vec![]))];
    function
}

fn parameter(reference: Option<Reference>, body: OpenSignatureBody) -> OpenSignature {
    let mut signature = OpenSignature::default();
    signature.reference = reference.map(|reference| reference as i32);
    signature.body = Some(body);
    signature
}

fn datatype(package: Address, name: &str, parameters: Vec<OpenSignatureBody>) -> OpenSignatureBody {
    let mut body = OpenSignatureBody::default();
    body.r#type = Some(Type::Datatype as i32);
    body.type_name = Some(format!("{package}::{name}"));
    body.type_parameter_instantiation = parameters;
    body
}
