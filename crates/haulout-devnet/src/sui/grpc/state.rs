//! `sui.rpc.v2.StateService`.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use sui_rpc::field::FieldMaskTree;
use sui_rpc::proto::sui::rpc::v2::{
    Balance, Bcs, CoinMetadata, DynamicField, GetBalanceRequest, GetBalanceResponse,
    GetCoinInfoRequest, GetCoinInfoResponse, ListBalancesRequest, ListBalancesResponse,
    ListDynamicFieldsRequest, ListDynamicFieldsResponse, ListOwnedObjectsRequest,
    ListOwnedObjectsResponse, Object as ObjectMessage, dynamic_field::DynamicFieldKind,
    state_service_server::StateService,
};
use sui_sdk_types::{Address, Object, StructTag, TypeTag};
use tonic::{Request, Response, Status};

use super::{
    Service,
    errors::{address, invalid, mask, missing, not_found},
    render::{self, is_of_type},
    view::View,
};
use crate::sui::{exec::coin_value, walrus::wal_coin_tag};

/// Items of a page: when not said, and at most.
const PAGE: u32 = 50;
const PAGE_MAX: u32 = 1_000;

#[tonic::async_trait]
impl StateService for Service {
    async fn list_dynamic_fields(
        &self,
        request: Request<ListDynamicFieldsRequest>,
    ) -> Result<Response<ListDynamicFieldsResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let parent = address(request.parent.as_deref(), "parent", "parent")?;
            let mask = mask::<DynamicField>(request.read_mask, "parent,field_id")?;
            let ids = view.chain.store.fields_of(parent);
            let (ids, next) = page(ids, |id| *id, request.page_size, request.page_token)?;
            let mut response = ListDynamicFieldsResponse::default();
            response.next_page_token = next;
            for id in ids {
                let object = view.object(id, None)?;
                response.dynamic_fields.extend(field(view, parent, &object, &mask));
            }
            Ok(response)
        })
    }

    async fn list_owned_objects(
        &self,
        request: Request<ListOwnedObjectsRequest>,
    ) -> Result<Response<ListOwnedObjectsResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let owner = address(request.owner.as_deref(), "owner", "owner")?;
            let mask = mask::<ObjectMessage>(request.read_mask, "object_id,version,object_type")?;
            let wanted: Option<StructTag> = match &request.object_type {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| {
                    invalid("object_type", "invalid object_type: not a struct type")
                })?),
            };
            let all = view.chain.store.owned_by(owner);
            let all = all.filter(|o| wanted.as_ref().is_none_or(|wanted| is_of_type(o, wanted)));
            let (objects, next) =
                page(all, |o| o.object_id(), request.page_size, request.page_token)?;
            let mut response = ListOwnedObjectsResponse::default();
            response.next_page_token = next;
            let objects = objects.into_iter();
            response.objects = objects.map(|o| render::object(&view.distort(o), &mask)).collect();
            Ok(response)
        })
    }

    async fn get_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<Response<GetBalanceResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let owner = address(request.owner.as_deref(), "owner", "owner")?;
            let coin = coin_type(request.coin_type.as_deref())?;
            let type_ = StructTag::coin(coin.clone());
            let coins = view.chain.store.owned_of_type(owner, &type_);
            let sum = coins.filter_map(|object| coin_value(object, &type_)).sum();
            let mut response = GetBalanceResponse::default();
            response.balance = Some(balance(&coin, sum));
            Ok(response)
        })
    }

    async fn list_balances(
        &self,
        request: Request<ListBalancesRequest>,
    ) -> Result<Response<ListBalancesResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let owner = address(request.owner.as_deref(), "owner", "owner")?;
            let mut sums: BTreeMap<TypeTag, u64> = BTreeMap::new();
            for object in view.chain.store.owned_by(owner) {
                let Some(type_) = object.as_struct().map(|data| data.object_type()) else {
                    continue;
                };
                if let (Some(coin), Some(value)) = (type_.is_coin(), coin_value(object, type_)) {
                    *sums.entry(coin.clone()).or_default() += value;
                }
            }
            let mut response = ListBalancesResponse::default();
            response.balances = sums.iter().map(|(coin, sum)| balance(coin, *sum)).collect();
            Ok(response)
        })
    }

    async fn get_coin_info(
        &self,
        request: Request<GetCoinInfoRequest>,
    ) -> Result<Response<GetCoinInfoResponse>, Status> {
        let request = request.into_inner();
        self.answer(|view| {
            let text = request.coin_type.as_deref().ok_or_else(|| missing("coin_type"))?;
            let coin = coin_type(Some(text))?;
            let wal = wal_coin_tag(view.chain.packages.wal());
            let (symbol, name) = if coin == TypeTag::from(StructTag::sui()) {
                ("SUI", "Sui")
            } else if wal.is_coin() == Some(&coin) {
                ("WAL", "WAL Token")
            } else {
                return Err(not_found(format!("Coin type {coin} not found")));
            };
            let mut metadata = CoinMetadata::default();
            metadata.decimals = Some(9);
            metadata.symbol = Some(symbol.into());
            metadata.name = Some(name.into());
            metadata.description = Some(String::new());
            let mut response = GetCoinInfoResponse::default();
            response.coin_type = Some(coin.to_string());
            response.metadata = Some(metadata);
            Ok(response)
        })
    }
}

fn coin_type(text: Option<&str>) -> Result<TypeTag, Status> {
    match text {
        None => Ok(StructTag::sui().into()),
        Some(text) => text
            .parse::<StructTag>()
            .map(Into::into)
            .map_err(|_| invalid("coin_type", "invalid coin_type: not a struct type")),
    }
}

fn balance(coin: &TypeTag, sum: u64) -> Balance {
    let mut balance = Balance::default();
    balance.coin_type = Some(coin.to_string());
    balance.balance = Some(sum);
    balance.coin_balance = Some(sum);
    balance.address_balance = Some(0);
    balance
}

/// One page of items in the order of their ids. The token is the id of the last one.
fn page<T>(
    items: impl Iterator<Item = T>,
    id: impl Fn(&T) -> Address,
    size: Option<u32>,
    token: Option<Bytes>,
) -> Result<(Vec<T>, Option<Bytes>), Status> {
    let size = size.filter(|size| *size > 0).unwrap_or(PAGE).min(PAGE_MAX) as usize;
    let after = match token {
        None => None,
        Some(token) => Some(
            Address::from_bytes(&token).map_err(|_| invalid("page_token", "invalid page_token"))?,
        ),
    };
    let mut items = items.filter(|item| after.is_none_or(|after| id(item) > after));
    let page: Vec<T> = items.by_ref().take(size).collect();
    let next = match (items.next(), page.last()) {
        (Some(_), Some(last)) => Some(Bytes::copy_from_slice(id(last).as_bytes())),
        _ => None,
    };
    Ok((page, next))
}

/// A dynamic field: `Field<K, V>` is id, key, value; an object field's value is the object's id.
fn field(
    view: &View<'_>,
    parent: Address,
    object: &Object,
    mask: &FieldMaskTree,
) -> Option<DynamicField> {
    let data = object.as_struct()?;
    let [key, value] = data.object_type().type_params() else { return None };
    let rest = data.contents().get(Address::LENGTH..)?;
    let wrapped = wrapped_key(key);
    let (name, value_bytes) = rest.split_at_checked(key_length(wrapped.unwrap_or(key), rest)?)?;
    let child = match wrapped {
        Some(_) => {
            let id = Address::from_bytes(value_bytes).ok()?;
            Some(view.object(id, None).ok()?)
        }
        None => None,
    };

    let mut message = DynamicField::default();
    if mask.contains("kind") {
        let kind = if child.is_some() { DynamicFieldKind::Object } else { DynamicFieldKind::Field };
        message.kind = Some(kind as i32);
    }
    if mask.contains("parent") {
        message.parent = Some(parent.to_string());
    }
    if mask.contains("field_id") {
        message.field_id = Some(object.object_id().to_string());
    }
    if mask.contains("name") {
        message.name = Some(bcs(wrapped.unwrap_or(key).to_string(), name));
    }
    let child_data = child.as_ref().and_then(|child| child.as_struct());
    let value_type =
        child_data.map_or_else(|| value.to_string(), |data| data.object_type().to_string());
    if mask.contains("value") {
        let bytes = child_data.map_or(value_bytes, |data| data.contents());
        message.value = Some(bcs(value_type.clone(), bytes));
    }
    if mask.contains("value_type") {
        message.value_type = Some(value_type);
    }
    if let Some(mask) = mask.subtree("field_object") {
        let mut field = render::object(object, &mask);
        field.object_id = Some(object.object_id().to_string());
        message.field_object = Some(field);
    }
    if let Some(child) = &child {
        if mask.contains("child_id") {
            message.child_id = Some(child.object_id().to_string());
        }
        if let Some(mask) = mask.subtree("child_object") {
            message.child_object = Some(render::object(child, &mask));
        }
    }
    Some(message)
}

fn bcs(name: String, value: &[u8]) -> Bcs {
    let mut bcs = Bcs::from(value.to_vec());
    bcs.name = Some(name);
    bcs
}

/// The key's type, if the field is an object field.
fn wrapped_key(key: &TypeTag) -> Option<&TypeTag> {
    match key {
        TypeTag::Struct(tag) if tag.module().as_str() == "dynamic_object_field" => {
            tag.type_params().first()
        }
        _ => None,
    }
}

/// How many bytes the key takes. Known are numbers, addresses, ids and short byte strings.
fn key_length(key: &TypeTag, bytes: &[u8]) -> Option<usize> {
    match key {
        TypeTag::Bool | TypeTag::U8 => Some(1),
        TypeTag::U16 => Some(2),
        TypeTag::U32 => Some(4),
        TypeTag::U64 => Some(8),
        TypeTag::U128 => Some(16),
        TypeTag::U256 | TypeTag::Address => Some(32),
        TypeTag::Struct(tag) if tag.name().as_str() == "ID" => Some(32),
        TypeTag::Vector(_) => bytes.first().filter(|n| **n < 0x80).map(|n| 1 + usize::from(*n)),
        _ => None,
    }
}
